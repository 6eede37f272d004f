//! The program that prints credentials of a bucket, run for a storage that asks for them.

use std::ffi::OsString;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::postgres::environment::Environment;
use crate::postgres::process::Program;
use pgkeep_storage::CredentialSource;

/// How long the program may take; some ask a person or a far service.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Most that such a program prints.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// How the Azure CLI prints a token for its own login.
const AZURE_CLI: [&str; 7] = [
    "az",
    "account",
    "get-access-token",
    "--resource",
    "https://storage.azure.com",
    "--output",
    "json",
];

/// A program and its arguments, in the shape of AWS `credential_process`.
#[derive(Debug)]
pub(super) struct CredentialCommand {
    command: Vec<SecretString>,
    environment: Environment,
    words: &'static str,
}

impl CredentialCommand {
    /// Unlike PostgreSQL's programs it sees the whole environment: that is where its own keys are.
    pub(super) fn new(command: Vec<SecretString>, variables: Vec<(OsString, OsString)>) -> Self {
        let mut environment = Environment::new(Vec::new());
        for (name, value) in variables {
            if let Some(name) = name.to_str() {
                environment.set(name, value);
            }
        }
        Self {
            command,
            environment,
            words: "what `credential_command` prints",
        }
    }

    /// The Azure CLI, and so whoever logged in by it.
    pub(super) fn azure_cli(variables: Vec<(OsString, OsString)>) -> Self {
        Self {
            words: "whoever logged in by the Azure CLI (`az login`)",
            ..Self::new(AZURE_CLI.map(SecretString::from).to_vec(), variables)
        }
    }
}

#[async_trait]
impl CredentialSource for CredentialCommand {
    async fn fetch(&self) -> Result<SecretString, String> {
        let (program, arguments) = self.command.split_first().ok_or("no program is named")?;
        let program = Program::new(program.expose_secret(), &self.environment)
            .args(arguments.iter().map(ExposeSecret::expose_secret));
        // What it printed on stderr stays out of the words: it may be a token.
        let captured = program
            .run(&CancellationToken::new(), TIMEOUT, MAX_OUTPUT_BYTES)
            .await
            .map_err(|error| error.to_string())?;
        String::from_utf8(captured.stdout)
            .map(SecretString::from)
            .map_err(|_| "it printed no text".to_owned())
    }

    fn words(&self) -> &'static str {
        self.words
    }
}
