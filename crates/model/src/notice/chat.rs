//! A notice as the messages of Slack and Discord.
//!
//! Whatever a database or a table is called, it mentions nobody and starts no formatting.

use serde_json::{Value, json};

use super::{Notice, Outcome, cut};

/// Slack's own limits: text of a message, of a section, of a field; fields of a section.
/// <https://docs.slack.dev/reference/block-kit/blocks/section-block>
const SLACK_SECTION: usize = 3000;
const SLACK_FIELD: usize = 2000;
const SLACK_FIELDS: usize = 10;

/// Discord's own limits: content, an embed's description, name and value of a field, fields.
/// <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>
const DISCORD_CONTENT: usize = 2000;
const DISCORD_DESCRIPTION: usize = 4096;
const DISCORD_FIELD: usize = 1024;
const DISCORD_FIELDS: usize = 25;

/// All texts of Discord's embeds together may have 6000 characters; this is for the description, which leaves a rest for
/// the fields.
const DISCORD_WHY: usize = 2600;
const DISCORD_ALL_FIELDS: usize = 2500;

impl Notice {
    /// Renders the notice for Slack's incoming webhooks.
    pub fn slack(&self) -> Value {
        let subject = cut::escaped_head(&self.subject, SLACK_SECTION, cut::slack);
        let fields: Vec<Value> = self
            .facts()
            .into_iter()
            .take(SLACK_FIELDS)
            .map(|(name, value)| {
                let value = cut::escaped_head(&value, SLACK_FIELD - 64, cut::slack);
                json!({"type": "mrkdwn", "text": format!("*{name}*\n{value}"), "verbatim": true})
            })
            .collect();
        let mut blocks = vec![
            section(&format!("{} *{}*", self.slack_sign(), bold(&subject))),
            json!({"type": "section", "fields": fields}),
        ];
        if let Some(failure) = &self.failure {
            // The fence takes a few characters, and so may what keeps backticks apart.
            let lines = cut::tail(&failure.lines().join("\n"), SLACK_SECTION / 2);
            let code = cut::escaped_head(&cut::in_code(&lines), SLACK_SECTION - 16, cut::slack);
            blocks.push(section(&format!("```\n{code}\n```")));
        }
        for (name, text) in [
            ("safe", self.safe.clone()),
            ("next", self.next.join("\n")),
            ("warnings", self.warnings.join("\n")),
        ] {
            if !text.is_empty() {
                let text = cut::escaped_head(&text, SLACK_SECTION - 64, cut::slack);
                blocks.push(section(&format!("*{name}:* {text}")));
            }
        }
        json!({"text": subject, "blocks": blocks, "parse": "none", "link_names": false})
    }

    fn slack_sign(&self) -> &'static str {
        match self.outcome {
            Outcome::Good => ":white_check_mark:",
            Outcome::GoodBut => ":warning:",
            Outcome::Failed => ":x:",
        }
    }

    /// Renders the notice for Discord's webhooks.
    pub fn discord(&self) -> Value {
        let content = cut::escaped_head(&self.subject, DISCORD_CONTENT, cut::discord);
        let color = match self.outcome {
            Outcome::Good => 0x1a_7f_37,
            Outcome::GoodBut => 0x9a_67_00,
            Outcome::Failed => 0xb4_23_18,
        };
        json!({
            "content": content,
            "allowed_mentions": {"parse": []},
            "embeds": [{
                "description": self.discord_description(),
                "color": color,
                "timestamp": self.at.to_string(),
                "fields": self.discord_fields(),
            }],
        })
    }

    fn discord_description(&self) -> String {
        let mut text = String::new();
        if let Some(failure) = &self.failure {
            let lines = cut::tail(&failure.lines().join("\n"), DISCORD_WHY / 2);
            let code = cut::head(&cut::in_code(&lines), DISCORD_WHY - 16);
            text = format!("```\n{code}\n```\n");
        }
        let rest: Vec<String> = [("safe", self.safe.clone()), ("next", self.next.join(" "))]
            .into_iter()
            .filter(|(_, words)| !words.is_empty())
            .map(|(name, words)| format!("**{name}:** {}", discord_line(&words, 400)))
            .collect();
        cut::head(&(text + &rest.join("\n")), DISCORD_DESCRIPTION)
    }

    fn discord_fields(&self) -> Vec<Value> {
        let mut left = DISCORD_ALL_FIELDS;
        let fields = self.facts().into_iter().take(DISCORD_FIELDS);
        fields
            .map_while(|(name, value)| {
                let value = discord_line(&value, DISCORD_FIELD);
                left = left.checked_sub(cut::length(name) + cut::length(&value))?;
                Some(json!({"name": name, "value": value, "inline": true}))
            })
            .collect()
    }
}

fn discord_line(text: &str, max: usize) -> String {
    cut::escaped_head(&cut::one_line(text), max, cut::discord)
}

/// An asterisk would end bold text early.
fn bold(text: &str) -> String {
    text.replace('*', "∗")
}

fn section(text: &str) -> Value {
    // Verbatim: what looks like a channel, an address or a name is not made into a link.
    let text = json!({"type": "mrkdwn", "text": cut::head(text, SLACK_SECTION), "verbatim": true});
    json!({"type": "section", "text": text})
}
