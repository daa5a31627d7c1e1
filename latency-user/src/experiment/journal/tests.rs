//! Tests of journals: every way in which an experiment can end.

use super::*;
use crate::experiment::knob::{FileKnob, Form, Knob};

struct Fixture {
    root: tempfile::TempDir,
    directory: JournalDirectory,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("knob"), "old").unwrap();
        let directory = JournalDirectory::new(root.path().join("state"));
        Self { root, directory }
    }

    fn knob(&self) -> PathBuf {
        self.root.path().join("knob")
    }

    fn entry(&self, at: &str) -> JournalEntry {
        let knob = Knob::File(FileKnob { path: self.knob(), netns: None, form: Form::Words });
        let saved = SavedValue {
            knob,
            old: "old".into(),
            requested: "new".into(),
            effective: None,
            follows: false,
        };
        JournalEntry::new(at.into(), vec!["sysctl:x=new".into()], vec![saved]).unwrap()
    }
}

#[test]
fn what_a_killed_process_changed_is_put_back() {
    let fixture = Fixture::new();
    let mut journal = fixture.directory.begin(&fixture.entry("1")).unwrap();
    assert!(fixture.directory.left_over().is_empty(), "it is locked");
    journal.note(ChangeStep::Written, &fixture.entry("1").saved).unwrap();
    fs::write(fixture.knob(), "new").unwrap();
    let entry = journal.entry.clone();
    // The kernel closes the file of a process that is killed.
    drop(journal);
    let mut left = fixture.directory.left_over();
    assert_eq!(left.len(), 1);
    let left = left.remove(0);
    assert_eq!(left.entry, entry);
    assert_eq!(left.entry.as_ref().unwrap().restore(), []);
    assert_eq!(fs::read_to_string(fixture.knob()).unwrap(), "old");
    left.done().unwrap();
    assert!(fixture.directory.left_over().is_empty());
}

#[test]
fn one_experiment_on_a_knob_at_a_time() {
    let fixture = Fixture::new();
    let journal = fixture.directory.begin(&fixture.entry("1")).unwrap();
    let refused = |word| {
        let error = fixture.directory.begin(&fixture.entry("2")).err().unwrap();
        assert!(format!("{error:#}").contains(word), "{error:#}");
    };
    refused("is changing");
    drop(journal);
    refused("did not end");
    for left in fixture.directory.left_over() {
        left.done().unwrap();
    }
    fixture.directory.begin(&fixture.entry("3")).unwrap().done().unwrap();
}

#[test]
fn a_torn_header_is_a_change_that_never_started() {
    let fixture = Fixture::new();
    let header = serde_json::to_vec(&fixture.entry("1")).unwrap();
    fs::create_dir_all(fixture.directory.path()).unwrap();
    for length in 0..header.len() {
        let path = fixture.directory.path().join("7-1.journal");
        fs::write(path, &header[..length]).unwrap();
        let mut left = fixture.directory.left_over();
        assert!(left[0].entry.is_none() && left[0].is_torn, "{length} bytes");
        left.remove(0).done().unwrap();
    }
    fs::write(fixture.directory.path().join("7-1.unfinished"), &header).unwrap();
    assert!(fixture.directory.left_over().is_empty());
    fixture.directory.begin(&fixture.entry("2")).unwrap().done().unwrap();
}

/// Killed at each byte while the line of a step was written: the previous step counts, and the
/// knob is as that step leaves it.
#[test]
fn a_torn_step_was_not_taken() {
    let fixture = Fixture::new();
    let rounded =
        SavedValue { effective: Some("rounded".into()), ..fixture.entry("1").saved[0].clone() };
    let mut journal = fixture.directory.begin(&fixture.entry("1")).unwrap();
    let mut ends = vec![journal.file.metadata().unwrap().len() as usize];
    for (step, saved) in
        [(ChangeStep::Writing, &fixture.entry("1").saved[0]), (ChangeStep::Written, &rounded)]
    {
        journal.note(step, std::slice::from_ref(saved)).unwrap();
        ends.push(journal.file.metadata().unwrap().len() as usize);
    }
    let complete = fs::read(&journal.path).unwrap();
    journal.done().unwrap();
    for length in ends[0]..=complete.len() {
        let path = fixture.directory.path().join("7-1.journal");
        fs::write(path, &complete[..length]).unwrap();
        let left = fixture.directory.left_over().remove(0);
        let entry = left.entry.as_ref().unwrap();
        // A line can be read without its line end.
        let expected = match length {
            _ if length < ends[1] - 1 => ChangeStep::Untouched,
            _ if length < ends[2] - 1 => ChangeStep::Writing,
            _ => ChangeStep::Written,
        };
        assert_eq!(entry.step, expected, "{length} bytes");
        // Only the last step has the value that was read back.
        let is_known = expected == ChangeStep::Written;
        assert_eq!(entry.saved[0].new_value(), if is_known { "rounded" } else { "new" });
        let holds = if expected == ChangeStep::Untouched { "old" } else { "rounded" };
        fs::write(fixture.knob(), holds).unwrap();
        assert_eq!(entry.restore(), [], "{length} bytes");
        assert_eq!(fs::read_to_string(fixture.knob()).unwrap(), "old");
        left.done().unwrap();
    }
}

#[test]
fn a_journal_of_an_older_version_is_undone() {
    let fixture = Fixture::new();
    let entry = fixture.entry("1");
    let old = format!(
        r#"{{"boot":"{}","pid":7,"began_at":"1","settings":["sysctl:x=new"],"saved":[{{"knob":{{"path":"{}","netns":null,"form":"words"}},"old":"old","new":"new"}}]}}"#,
        entry.boot,
        fixture.knob().display()
    );
    fs::create_dir_all(fixture.directory.path()).unwrap();
    fs::write(fixture.directory.path().join("7-1.journal"), old).unwrap();
    fs::write(fixture.knob(), "new").unwrap();
    let left = fixture.directory.left_over().remove(0);
    assert_eq!(left.entry.as_ref().unwrap().restore(), []);
    assert_eq!(fs::read_to_string(fixture.knob()).unwrap(), "old");
}

#[test]
fn a_complete_journal_of_another_version_is_not_torn() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.directory.path()).unwrap();
    let text = "{\"saved\":[{\"knob\":{\"magic\":1}}]}\n";
    fs::write(fixture.directory.path().join("7-1.journal"), text).unwrap();
    let left = fixture.directory.left_over().remove(0);
    assert!(left.entry.is_none() && !left.is_torn);
}

#[test]
fn after_a_restart_nothing_is_put_back() {
    let fixture = Fixture::new();
    let entry = JournalEntry { boot: "another".into(), ..fixture.entry("1") };
    fs::write(fixture.knob(), "new").unwrap();
    assert_eq!(entry.restore(), []);
    assert_eq!(fs::read_to_string(fixture.knob()).unwrap(), "new");
}

#[test]
fn what_others_can_have_written_is_not_believed() {
    let fixture = Fixture::new();
    let journal = fixture.directory.begin(&fixture.entry("1")).unwrap();
    let (path, directory) = (journal.path().to_owned(), fixture.root.path().join("state"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&directory)), (0o600, 0o700));
    drop(journal);
    assert_eq!(fixture.directory.left_over().len(), 1);
    let text = fs::read(&path).unwrap();

    // Writable by others, a link, a FIFO: none is read, and none blocks.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(fixture.directory.left_over().is_empty());
    fs::remove_file(&path).unwrap();
    let elsewhere = fixture.root.path().join("elsewhere");
    fs::write(&elsewhere, &text).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(fixture.directory.left_over().is_empty());
    fs::remove_file(&path).unwrap();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string that ends in NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(fixture.directory.left_over().is_empty());
    fs::remove_file(&path).unwrap();

    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let error = fixture.directory.begin(&fixture.entry("2")).err().unwrap().to_string();
    assert!(error.contains("can be written by other users"), "{error}");
}

#[test]
fn who_holds_a_lock_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::open(directory.path()).unwrap();
    assert_eq!(holder(&file), None);
    lock(&file, libc::LOCK_EX).unwrap();
    assert_eq!(holder(&file), Some(std::process::id()));
}

#[test]
fn journals_that_were_not_finished_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let [left, held, other] = ["1-1.unfinished", "2-2.unfinished", "3-3.txt"].map(|name| {
        let path = directory.path().join(name);
        fs::write(&path, "{").unwrap();
        path
    });
    let writer = File::open(&held).unwrap();
    lock(&writer, libc::LOCK_EX).unwrap();
    JournalDirectory::new(directory.path()).clean();
    assert!(!left.exists() && held.exists() && other.exists());
    JournalDirectory::new(directory.path().join("none")).clean();
}
