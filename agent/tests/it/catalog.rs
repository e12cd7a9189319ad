//! The database that comes back, is damaged, or cannot be.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use sifter_agent::catalog::{Catalog, Condition};
use sifter_agent::config::RootSettings;

use crate::support::mounted::Mounted;
use crate::support::site::Site;
use crate::support::tree::{outwait_granularity, sif, tree_of, write};
use crate::support::{Agent, images, until};
use crate::tool::{run, sifter};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_restart_serves_the_last_listing_before_any_scan() {
    let (tree, _) = tree_of(20);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("catalog.sqlite");
    drop(Site::start(tree.path(), Some(state.path())));
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'directories_by_path'";
    let stored = rusqlite::Connection::open(&file).unwrap();
    let indexes: i64 = stored.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(indexes, 1, "the first scan ended with the index of paths");
    drop(stored);
    let catalog = Catalog::open(Some(&file), &[tree.path().to_path_buf()]);
    let snapshot = catalog.snapshot();
    assert_eq!(snapshot.rows.len(), 20);
    assert!(snapshot.as_of.is_some());
    let details = catalog.details(snapshot.rows[0].id()).unwrap();
    assert!(details.definition.contains("image"));
    assert_eq!(details.objects.len(), 2);
}

#[test]
fn a_damaged_database_is_set_aside_and_rebuilt() {
    let (tree, _) = tree_of(6);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("catalog.sqlite");
    drop(Site::start(tree.path(), Some(state.path())));
    for damage in ["not a database at all, in any way", ""] {
        if damage.is_empty() {
            // Pages of it overwritten: found when it is read.
            let mut bytes = fs::read(&file).unwrap();
            let end = bytes.len();
            bytes[2048..end].fill(0xa5);
            fs::write(&file, bytes).unwrap();
        } else {
            fs::write(&file, damage.repeat(100)).unwrap();
        }
        let _ = fs::remove_file(state.path().join("catalog.sqlite-wal"));
        let _ = fs::remove_file(state.path().join("catalog.sqlite-shm"));
        let site = Site::start(tree.path(), Some(state.path()));
        assert_eq!(site.listing().len(), 6);
        assert_eq!(site.catalog.condition(), Condition::Ok, "rebuilt on disk");
        drop(site);
        let aside = fs::read_dir(state.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().contains("broken")
            })
            .count();
        assert!(aside >= 1, "the damaged file is kept");
    }
}

#[test]
fn a_database_whose_file_is_gone_is_begun_anew() {
    let (tree, _) = tree_of(6);
    outwait_granularity(tree.path());
    let state = tempfile::tempdir().unwrap();
    let at = |ending: &str| state.path().join(format!("catalog.sqlite{ending}"));
    let site = Site::start(tree.path(), Some(state.path()));
    for case in ["deleted", "deleted with all beside", "replaced", "deleted"] {
        match case {
            "replaced" => {
                fs::write(at(".new"), [b'x'; 8192]).unwrap();
                fs::rename(at(".new"), at("")).unwrap();
            }
            "deleted" => fs::remove_file(at("")).unwrap(),
            _ => ["", "-wal", "-shm"]
                .iter()
                .for_each(|ending| fs::remove_file(at(ending)).unwrap()),
        }
        site.rescan(false, false);
        assert_eq!(site.catalog.condition(), Condition::Ok, "{case}");
        assert_eq!(site.listing().len(), 6, "{case}");
        let stored = rusqlite::Connection::open(at("")).unwrap();
        let count = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table}");
            stored
                .query_row(&sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(count("images"), 6, "{case}");
        drop(stored);
        let counts = site.rescan(false, false);
        assert_eq!(counts.files_read, 0, "{case}: it is the same one now");
    }
    drop(site);
    let catalog = Catalog::open(Some(&at("")), &[tree.path().to_path_buf()]);
    assert_eq!(catalog.snapshot().rows.len(), 6);
}

#[test]
fn a_directory_in_place_of_the_database_leaves_the_listing_in_memory() {
    let (tree, _) = tree_of(4);
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("catalog.sqlite")).unwrap();
    let mut settings = RootSettings::new(tree.path().to_owned());
    settings.interval = Duration::from_secs(86_400);
    settings.file_interval = settings.interval;
    let site = Site::with(settings, Some(state.path()));
    assert_eq!(site.listing().len(), 4);
    assert!(matches!(
        site.catalog.condition(),
        sifter_agent::catalog::Condition::Failed(_)
    ));
    // Once the way is free, the database is used again, also where only some directories were to be looked at.
    fs::remove_dir(state.path().join("catalog.sqlite")).unwrap();
    until("a new image is listed", || {
        write(&tree.path().join("d0/new.sif"), &sif("new:1", 9));
        site.listing().len() == 5
    });
    fs::remove_file(tree.path().join("d0/new.sif")).unwrap();
    site.rescan(false, true);
    assert_eq!(site.listing().len(), 4);
    assert_eq!(site.catalog.condition(), Condition::Ok);
    drop(site);
    let catalog = Catalog::open(
        Some(&state.path().join("catalog.sqlite")),
        &[tree.path().to_path_buf()],
    );
    assert_eq!(catalog.snapshot().rows.len(), 4);
}

#[test]
fn what_goes_on_failing_is_logged_once_and_so_is_its_end() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let in_the_way = state.join("catalog.sqlite");
    fs::create_dir_all(&in_the_way).unwrap();
    images(temporary.path(), &["a.sif"]);
    let more = format!("state_directory = '{}'", state.display());
    let agent = Agent::start(temporary.path(), "", &more);
    let rescan = || {
        let ran = run(temporary.path(), &["rescan", "--address", &agent.unix()]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    };
    (0..3).for_each(|_| rescan());
    fs::remove_dir(&in_the_way).unwrap();
    (0..2).for_each(|_| rescan());
    let log = agent.log();
    for (text, count) in [
        ("cannot be opened", 1),
        ("cannot be", 1),
        ("is used again", 1),
    ] {
        assert_eq!(log.matches(text).count(), count, "{text}: {log}");
    }
}

/// Overwrites the first page of a table behind the back of those who use the database.
fn damage(file: &Path, table: &str) {
    let other = rusqlite::Connection::open(file).unwrap();
    let pragma = |name: &str| -> u32 {
        let sql = format!("PRAGMA {name}");
        other.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let page: u32 = other.query_row(sql, [table], |row| row.get(0)).unwrap();
    let size = pragma("page_size");
    // All is in the file then, and what others remember of it is old.
    other
        .execute_batch("CREATE TABLE other (a); DROP TABLE other")
        .unwrap();
    pragma("wal_checkpoint(TRUNCATE)");
    drop(other);
    let database = fs::OpenOptions::new().write(true).open(file).unwrap();
    let noise = vec![0xa5; size as usize];
    std::os::unix::fs::FileExt::write_all_at(
        &database,
        &noise,
        u64::from(page - 1) * u64::from(size),
    )
    .unwrap();
}

#[test]
fn a_database_that_is_damaged_while_it_is_used_is_set_aside_at_once() {
    for table in ["directories", "files", "images", "commons", "roots"] {
        let (tree, _) = tree_of(40);
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("catalog.sqlite");
        let site = Site::start(tree.path(), Some(state.path()));
        damage(&file, table);
        write(&tree.path().join("d0/new.sif"), &sif("new:1", 99));
        site.rescan(false, true);
        assert_eq!(site.listing().len(), 41, "{table}");
        let status = site.supervisor.status();
        assert_eq!(status[0].last.as_ref().unwrap().error, None, "{table}");
        assert_eq!(site.catalog.condition(), Condition::Ok, "{table}");
        let aside = fs::read_dir(state.path()).unwrap();
        let aside = aside.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("broken")
        });
        assert_eq!(aside.count(), 1, "{table}");
    }
}

#[test]
fn a_full_disk_leaves_the_listing_in_memory_until_there_is_space() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let Some(_mounted) = Mounted::new(&state, "3m") else {
        return;
    };
    let (tree, _) = tree_of(40);
    let site = Site::start(tree.path(), Some(&state));
    rusqlite::Connection::open(state.join("catalog.sqlite"))
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let fill = state.join("fill");
    assert!(fs::write(&fill, vec![0; 4 << 20]).is_err(), "it is full");
    outwait_granularity(tree.path());
    for number in 0..3 {
        let path = format!("new{number}.sif");
        write(&tree.path().join(path), &sif("new:1", 100 + number));
        let read = site.rescan(false, true).files_read;
        assert_eq!(
            number == 0,
            read > 40,
            "what is known in memory is enough: {read}"
        );
        assert_eq!(site.listing().len(), 41 + usize::from(number));
        assert!(matches!(site.catalog.condition(), Condition::Failed(_)));
        assert_eq!(
            site.supervisor.status()[0].last.as_ref().unwrap().error,
            None
        );
    }
    fs::remove_file(&fill).unwrap();
    site.rescan(false, true);
    assert_eq!(site.catalog.condition(), Condition::Ok);
    assert_eq!(site.listing().len(), 43);
    drop(site);
    let site = Site::start(tree.path(), Some(&state));
    assert_eq!(site.listing().len(), 43);
}

#[test]
fn a_state_directory_has_one_agent() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    images(directory, &["a.sif"]);
    let state = directory.join("state");
    let first = Agent::start(
        directory,
        "",
        &format!("state_directory = '{}'", state.display()),
    );
    let second = || {
        let mut command = crate::tool::sifter();
        command
            .arg("agent")
            .arg("--root")
            .arg(directory.join("images"));
        command
            .arg("--listen")
            .arg(format!("unix:{}/second.sock", directory.display()));
        command.arg("--state-dir").arg(&state);
        command
    };
    let refused = second().output().unwrap();
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("another agent uses the state directory"),
        "{message}"
    );
    // However it ends, the next one has it.
    first.signal(Signal::SIGKILL);
    drop(first);
    let mut next = second()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = BufReader::new(next.stdout.take().unwrap()).lines().next();
    assert!(line.unwrap().unwrap().starts_with("listening on "));
    next.kill().unwrap();
    next.wait().unwrap();
}

/// What the service manager is told by a start with the catalogue in `state`, until it is complete.
fn told_at_start(state: &Path, tree: &Path) -> String {
    let notify = state.join("notify");
    let _ = fs::remove_file(&notify);
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = state.join("agent.toml");
    let text = format!(
        "state_directory = '{0}'\nlisten = ['unix:{0}/agent.sock']\n[[root]]\npath = '{1}'\n",
        state.display(),
        tree.display()
    );
    fs::write(&config, text).unwrap();
    let mut agent = sifter()
        .args(["agent", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", &notify)
        .stdout(Stdio::null())
        .stderr(fs::File::create(state.join("agent.log")).unwrap())
        .spawn()
        .unwrap();
    let mut told = String::new();
    while !told.contains("READY=1") {
        let mut state = [0; 4096];
        let Ok(length) = manager.recv(&mut state) else {
            break;
        };
        told.push_str(std::str::from_utf8(&state[..length]).unwrap());
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    told
}

#[test]
fn a_start_that_rewrites_the_catalogue_is_given_time() {
    let (tree, _) = tree_of(2);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("catalog.sqlite");
    let old = rusqlite::Connection::open(&file).unwrap();
    old.execute_batch(include_str!("../../src/catalog/schema/1.sql"))
        .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    for rewrites in [true, false] {
        let told = told_at_start(state.path(), tree.path());
        assert!(told.contains("READY=1"), "{told}");
        assert_eq!(told.contains("EXTEND_TIMEOUT_USEC=1800000000"), rewrites);
        let log = fs::read_to_string(state.path().join("agent.log")).unwrap();
        assert_eq!(log.contains("an older schema"), rewrites, "{log}");
    }
    // Nor does one that makes the catalogue.
    fs::remove_file(&file).unwrap();
    let told = told_at_start(state.path(), tree.path());
    assert!(!told.contains("EXTEND_TIMEOUT_USEC"), "{told}");
}
