//! The names of what a first start makes are there after a loss of power, not only the contents.

use std::collections::BTreeSet;

use super::*;
use crate::{
    data_folder::{DataFolder, Layout},
    files,
    identity::ServerIdentity,
};

/// Does as a first start does, up to the first commit, in a folder of which the parents are not there either.
fn start(parent: &Path) {
    let folder = DataFolder::open(Layout::new(parent.join("var/data"))).unwrap();
    let layout = folder.layout();
    let mut store = Store::open(&layout.database()).unwrap();
    files::prepare(&layout.files()).unwrap();
    ServerIdentity::load_or_make(layout).unwrap();
    begin_epoch(&mut store, 1);
    say(&format!("{}1\n", trace::DONE));
}

#[test]
fn all_that_a_first_start_makes_has_its_name_on_the_disk_before_it_is_used() {
    if let Some(folder) = env::var_os(FOLDER) {
        await_recorder();
        return start(Path::new(&folder));
    }
    let folder = folder();
    let test = "store::power::names::all_that_a_first_start_makes_has_its_name_on_the_disk_before_it_is_used";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", test]).env(FOLDER, folder.path());
    let calls = trace::record(&mut command, folder.path());
    let mut unsynced = BTreeSet::new();
    let mut made = BTreeSet::new();
    for call in calls.iter().take_while(|call| !matches!(call, Call::Done(_))) {
        match call {
            Call::Made(name) | Call::FolderMade(name) => drop(unsynced.insert(name.clone())),
            Call::Renamed(from, to) => {
                unsynced.remove(from);
                unsynced.insert(to.clone());
            }
            Call::Removed(name) => drop(unsynced.remove(name)),
            Call::NamesSynced(folder) => {
                made.extend(unsynced.extract_if(.., |name| name.parent() == Some(folder)));
            }
            Call::Cut(..) | Call::Written(..) | Call::Synced(_) | Call::Done(_) => {}
        }
    }
    for name in ["var", "var/data", "var/data/socp.db", "var/data/files", "var/data/identity-key.pem"] {
        assert!(made.contains(Path::new(name)), "`{name}` has no name on the disk: {made:?}");
    }
    assert_eq!(unsynced, BTreeSet::new());
}
