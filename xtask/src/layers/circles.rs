//! Circles: files of a crate that import from each other, directly or through others.
//!
//! A file and the module that contains it may use each other; anything else that goes round is a
//! circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{module_path, source};

/// The files of a crate by their modules, and which of them each imports from.
struct Imports(BTreeMap<Vec<String>, (PathBuf, BTreeSet<Vec<String>>)>);

/// Groups of files that import from each other. `files` are paths below `src` with their texts.
pub(super) fn find<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Vec<Vec<PathBuf>> {
    let texts: Vec<_> =
        files.into_iter().map(|(file, text)| (module_path(file), file, text)).collect();
    let modules: BTreeSet<Vec<String>> = texts.iter().map(|(module, ..)| module.clone()).collect();
    let imports = texts.into_iter().map(|(module, file, text)| {
        let paths = source::paths(text).into_iter();
        let used = paths.filter_map(|path| resolve(&module, &path, &modules));
        let used = used.filter(|used| !used.starts_with(&module) && !module.starts_with(used));
        let used = used.collect();
        (module, (file.to_path_buf(), used))
    });
    Imports(imports.collect()).circles()
}

/// The module that `path` in the file of `module` leads into.
fn resolve(
    module: &[String],
    path: &[String],
    modules: &BTreeSet<Vec<String>>,
) -> Option<Vec<String>> {
    let mut resolved: Vec<String> = Vec::new();
    if path.first().is_some_and(|first| first != "crate") {
        resolved.extend_from_slice(module);
    }
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(resolved.pop()),
            _ => resolved.push(segment.clone()),
        }
    }
    while !modules.contains(&resolved) {
        resolved.pop()?;
    }
    Some(resolved)
}

impl Imports {
    /// All that `start` leads to.
    fn reachable(&self, start: &Vec<String>) -> BTreeSet<&Vec<String>> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&Vec<String>> = self.0[start].1.iter().collect();
        while let Some(module) = open.pop() {
            if reached.insert(module) {
                open.extend(&self.0[module].1);
            }
        }
        reached
    }

    fn circles(&self) -> Vec<Vec<PathBuf>> {
        let reachable: BTreeMap<_, _> =
            self.0.keys().map(|module| (module, self.reachable(module))).collect();
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for (module, reached) in &reachable {
            if !reached.contains(module) || seen.contains(module) {
                continue;
            }
            let circle = reached.iter().filter(|other| reachable[*other].contains(module));
            let circle: Vec<&Vec<String>> = circle.copied().collect();
            circles.push(circle.iter().map(|module| self.0[*module].0.clone()).collect());
            seen.extend(circle);
        }
        circles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        find(files.iter().map(|(file, text)| (Path::new(*file), *text)))
            .into_iter()
            .map(|circle| circle.iter().map(|file| file.display().to_string()).collect())
            .collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::{self, B as C};"),
            ("b/mod.rs", "pub mod c; pub struct B;"),
            ("b/c.rs", "use super::super::a::A;"),
        ];
        assert_eq!(circles(&files), [[""; 0]; 0]);
        let direct = [files[0], files[1], ("b/mod.rs", "use crate::a;")];
        assert_eq!(circles(&direct), [["a.rs", "b/mod.rs"]]);
        let through = [files[0], ("a.rs", "use crate::{b::c, x};"), files[2], files[3]];
        assert_eq!(circles(&through), [["a.rs", "b/c.rs"]]);
    }

    #[test]
    fn a_module_and_its_parts_may_use_each_other() {
        let files = [("a/mod.rs", "mod b; use self::b::B;"), ("a/b.rs", "use super::A;")];
        assert_eq!(circles(&files), [[""; 0]; 0]);
    }

    #[test]
    fn tests_are_left_out() {
        let files = [
            ("a.rs", "use crate::b;"),
            ("b.rs", "mod tests { use crate::a; fn f() {} }\nfn g() {}"),
        ];
        assert_eq!(circles(&files), [[""; 0]; 0]);
    }
}
