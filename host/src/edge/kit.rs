//! The files that all projects have alike, as they were when this program was built.

use std::path::Path;

use include_dir::{Dir, include_dir};

use super::Runtime;
use crate::project::File;

static EDGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/edge");

/// Where the kit lies in a project.
const KIT_FOLDER: &str = "tollgate";

/// Templates and kit of a runtime, in the order in which one would read them.
pub(super) fn files(runtime: Runtime) -> Vec<File> {
    let mut files = Vec::new();
    for folder in [format!("project/{}", runtime.folder()), "project/all".to_owned()] {
        collect(&folder, Path::new(""), &mut files);
    }
    let other = match runtime {
        Runtime::Worker => Runtime::Node,
        Runtime::Node => Runtime::Worker,
    };
    let unused = Path::new(KIT_FOLDER).join(other.folder());
    collect("kit", Path::new(KIT_FOLDER), &mut files);
    files.retain(|(path, _)| !path.starts_with(&unused));
    files
}

/// The files below a folder of `plugins/edge/`, by their paths in a project.
fn collect(folder: &str, target: &Path, files: &mut Vec<File>) {
    let mut next: Vec<&Dir<'_>> = EDGE.get_dir(folder).into_iter().collect();
    while let Some(dir) = next.pop() {
        next.extend(dir.dirs());
        for file in dir.files() {
            let path = file.path().strip_prefix(folder).unwrap_or(file.path());
            // Under its own name git would follow it here.
            let path = if path == Path::new("gitignore") { Path::new(".gitignore") } else { path };
            files.push((target.join(path), file.contents().to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }

    /// Fails when the program holds another state than the repository; cargo does not see a file that is new.
    #[test]
    fn the_program_holds_the_kit_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/edge");
        let mut next = vec![&EDGE];
        let mut found = 0;
        while let Some(dir) = next.pop() {
            next.extend(dir.dirs());
            for file in dir.files() {
                let now = std::fs::read(root.join(file.path())).unwrap_or_default();
                assert!(
                    now == file.contents(),
                    "{}: touch host/src/edge/kit.rs and build again",
                    file.path().display()
                );
                found += 1;
            }
        }
        assert_eq!(found, count(&root), "touch host/src/edge/kit.rs and build again");
    }
}
