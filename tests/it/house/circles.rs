//! Files of one room import each other in one direction: of a circle, none can be read, tested or moved alone.
//!
//! A child may use its parent's types, as is usual in Rust, so a path from a file to its own ancestor does not count.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::rules::{Source, sources};

/// Modules by their path below `src`, `store/jobs` for `store/jobs/mod.rs`, each with those of its room that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn module_path(source: &Source) -> String {
    let path = source.path.trim_end_matches(".rs");
    path.trim_end_matches("/mod").to_owned()
}

/// Every path that begins at `start`, as segments: `a::{b, c::d}` is `a b` and `a c d`.
fn paths_at(code: &str, start: usize) -> Vec<Vec<String>> {
    fn is_part(c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '*'
    }
    // Returns what follows the path.
    fn read<'c>(mut rest: &'c str, before: &[String], found: &mut Vec<Vec<String>>) -> &'c str {
        let mut path = before.to_vec();
        loop {
            rest = rest.trim_start();
            if let Some(mut group) = rest.strip_prefix('{') {
                loop {
                    group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                    if group.is_empty() || group.starts_with('}') {
                        return group.strip_prefix('}').unwrap_or(group);
                    }
                    let after = read(group, &path, found);
                    // An alias is not a part of the path; anything else is no import, so the group ends.
                    let after = after.trim_start();
                    group = after
                        .strip_prefix("as ")
                        .map_or(after, |alias| alias.trim_start().trim_start_matches(is_part));
                    if !group.trim_start().starts_with([',', '}']) {
                        return group;
                    }
                }
            }
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            if end == 0 {
                found.push(path);
                return rest;
            }
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            let Some(after) = rest.strip_prefix("::") else {
                found.push(path);
                return rest;
            };
            rest = after;
        }
    }
    let mut found = Vec::new();
    read(&code[start..], &[], &mut found);
    found
}

/// The module that a path leads to from `module`: the longest beginning of it that is one.
fn target(module: &str, path: &[String], modules: &BTreeSet<String>) -> Option<String> {
    let mut at: Vec<&str> = match path.first()?.as_str() {
        "crate" => Vec::new(),
        _ => module.split('/').collect(),
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            name => {
                at.push(name);
                if !modules.contains(&at.join("/")) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at.join("/")).filter(|path| modules.contains(path))
}

fn graph(sources: &[Source]) -> Graph {
    let modules: BTreeSet<String> = sources.iter().map(module_path).collect();
    let start = Regex::new(r"\b(?:crate|super|self|[a-z_]+)::").unwrap();
    let mut graph = Graph::new();
    for source in sources {
        let module = module_path(source);
        let used = graph.entry(module.clone()).or_default();
        let room = source.module();
        for found in start.find_iter(&source.code) {
            // The middle of a path that was read from its beginning.
            if source.code[..found.start()].ends_with("::") {
                continue;
            }
            for path in paths_at(&source.code, found.start()) {
                used.extend(target(&module, &path, &modules).filter(|other| {
                    let is_ancestor = module == *other || module.starts_with(&format!("{other}/"));
                    !is_ancestor && (*other == room || other.starts_with(&format!("{room}/")))
                }));
            }
        }
    }
    graph
}

/// The strongly connected components of more than one module: those that reach each other.
fn circles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let reachable = |from: &String| -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = graph.get(from).into_iter().flatten().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(graph.get(module).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|module| (module, reachable(module))).collect();
    let circle = |module: &String| -> Vec<String> {
        reach[module].iter().filter(|other| reach[other].contains(module)).cloned().collect()
    };
    graph.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

#[test]
fn no_file_imports_in_a_circle_within_its_room() {
    let circles = circles(&graph(&sources()));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn circles_are_found_through_every_form_of_a_path() {
    let source =
        |path: &str, code: &str| Source { path: path.to_owned(), text: String::new(), code: code.to_owned() };
    let found = circles(&graph(&[
        source("a/mod.rs", "mod one;\nmod two;\nuse one::One;"),
        source("a/one.rs", "use super::{Shared, two as other, three::{self, Three}};"),
        source("a/two.rs", "fn f() { crate::a::three::go(); }"),
        source("a/three/mod.rs", "use deep::Deep;"),
        source("a/three/deep.rs", "use super::super::one::One;"),
        source("b.rs", "use crate::a::one::One;"),
    ]));
    let circle = ["a/one", "a/three", "a/three/deep", "a/two"];
    assert_eq!(found, BTreeSet::from([circle.map(str::to_owned).to_vec()]));
}
