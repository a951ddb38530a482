use std::os::unix::fs::MetadataExt as _;

use tempfile::TempDir;

use super::*;
use crate::cni::host_ifname;

fn id(container_id: &str) -> AttachmentId {
    AttachmentId {
        container_id: container_id.into(),
        ifname: "eth0".into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn attachment(container_id: &str, addresses: &[&str]) -> Attachment {
    Attachment {
        pod: PodId {
            namespace: "shop".into(),
            name: "web-0".into(),
        },
        pod_uid: "8c7a".into(),
        netns: "/run/netns/n".into(),
        ifname: "eth0".into(),
        host_ifname: host_ifname(container_id, "eth0"),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        mtu: 1450,
        created: "2026-01-02T03:04:05Z".parse().expect("a time"),
    }
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path()).expect("opened")
}

fn all_paths(dir: &Path) -> Vec<String> {
    let mut paths: Vec<String> = ["", "attachments", "unreadable"]
        .into_iter()
        .flat_map(|sub| files(&dir.join(sub)).expect("read"))
        .map(|path| path.strip_prefix(dir).expect("below").display().to_string())
        .collect();
    paths.sort();
    paths
}

#[test]
fn what_was_inserted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    let (one, two) = (
        attachment("c1", &["10.0.0.2", "fd00::2"]),
        attachment("c2", &["10.0.0.3"]),
    );
    store.insert(id("c1"), one.clone()).expect("inserted");
    store.insert(id("c2"), two.clone()).expect("inserted");
    let expected = BTreeMap::from([(id("c1"), one), (id("c2"), two)]);
    assert_eq!(store.attachments(), &expected);
    drop(store);

    let store = open(&dir);
    assert_eq!(store.attachments(), &expected);
    assert_eq!(
        store.in_use(),
        BTreeSet::from([ip("10.0.0.2"), ip("10.0.0.3"), ip("fd00::2")])
    );
    assert_eq!(store.unreadable(), &BTreeMap::new());
    let attachments = dir.path().join("attachments");
    assert_eq!(fs::metadata(attachments).expect("there").mode() & 0o777, 0o700);
}

#[test]
fn the_file_is_as_documented() {
    let dir = tempfile::tempdir().expect("a directory");
    open(&dir)
        .insert(id("c1"), attachment("c1", &["10.0.0.2", "fd00::2"]))
        .expect("inserted");
    assert_eq!(
        all_paths(dir.path()),
        ["attachments/weirfd61c7d1f13.json", "lock"]
    );
    let path = dir.path().join("attachments/weirfd61c7d1f13.json");
    let expected = r#"{
  "version": 1,
  "containerID": "c1",
  "ifname": "eth0",
  "pod": {
    "namespace": "shop",
    "name": "web-0",
    "uid": "8c7a"
  },
  "netns": "/run/netns/n",
  "hostIfname": "weirfd61c7d1f13",
  "addresses": [
    "10.0.0.2",
    "fd00::2"
  ],
  "mtu": 1450,
  "created": "2026-01-02T03:04:05Z"
}
"#;
    assert_eq!(fs::read_to_string(&path).expect("read"), expected);
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
}

#[test]
fn inserting_again_replaces() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    store
        .insert(id("c1"), attachment("c1", &["10.0.0.2"]))
        .expect("inserted");
    let other = attachment("c1", &["10.0.0.9"]);
    store.insert(id("c1"), other.clone()).expect("replaced");
    drop(store);
    assert_eq!(open(&dir).attachments(), &BTreeMap::from([(id("c1"), other)]));
}

#[test]
fn what_was_removed_is_remembered_as_freed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    for (container, address) in [("c1", "10.0.0.2"), ("c2", "10.0.0.3"), ("c3", "10.0.0.4")] {
        store
            .insert(id(container), attachment(container, &[address]))
            .expect("inserted");
    }
    let removed = store.remove(&id("c3")).expect("removed");
    assert_eq!(removed, Some(attachment("c3", &["10.0.0.4"])));
    assert_eq!(store.remove(&id("c3")).expect("gone"), None);
    store.remove(&id("c1")).expect("removed");
    assert_eq!(store.recently_freed(), [ip("10.0.0.4"), ip("10.0.0.2")]);
    drop(store);

    let mut store = open(&dir);
    assert_eq!(
        store.attachments(),
        &BTreeMap::from([(id("c2"), attachment("c2", &["10.0.0.3"]))])
    );
    assert_eq!(store.recently_freed(), [ip("10.0.0.4"), ip("10.0.0.2")]);
    store
        .insert(id("c4"), attachment("c4", &["10.0.0.4"]))
        .expect("inserted");
    assert_eq!(store.recently_freed(), [ip("10.0.0.2")]);
    drop(store);
    assert_eq!(open(&dir).recently_freed(), [ip("10.0.0.2")]);
}

#[test]
fn the_memory_of_freed_addresses_has_an_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    let addresses: Vec<String> = (0..=MAX_FREED).map(|n| format!("fd00::{n:x}")).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    store
        .insert(id("c1"), attachment("c1", &texts))
        .expect("inserted");
    store.remove(&id("c1")).expect("removed");
    let expected: Vec<IpAddr> = texts[1..].iter().map(|text| ip(text)).collect();
    assert_eq!(store.recently_freed(), expected);
}

#[test]
fn refuses_what_belongs_to_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    store
        .insert(id("c1"), attachment("c1", &["10.0.0.2"]))
        .expect("inserted");
    let error = store
        .insert(id("c2"), attachment("c2", &["10.0.0.3", "10.0.0.2"]))
        .expect_err("taken");
    assert_eq!(error.to_string(), "c2: 10.0.0.2 is taken already, by c1");

    let mut wrong = attachment("c2", &["10.0.0.3"]);
    wrong.host_ifname = host_ifname("c1", "eth0");
    let error = store.insert(id("c2"), wrong).expect_err("another's");
    let expected = format!(
        "c2: hostIfname is weirfd61c7d1f13, and that of the container is {}",
        host_ifname("c2", "eth0")
    );
    assert_eq!(error.to_string(), expected);

    let error = store
        .insert(id("c2"), attachment("c2", &[]))
        .expect_err("no address");
    assert_eq!(error.to_string(), "c2: addresses is empty");
    assert_eq!(
        store.attachments(),
        &BTreeMap::from([(id("c1"), attachment("c1", &["10.0.0.2"]))])
    );
    assert_eq!(
        all_paths(dir.path()),
        ["attachments/weirfd61c7d1f13.json", "lock"]
    );
}

#[test]
fn a_file_that_makes_no_sense_is_set_aside_and_its_addresses_stay_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    store
        .insert(id("c1"), attachment("c1", &["10.0.0.2", "fd00::2"]))
        .expect("inserted");
    store
        .insert(id("c2"), attachment("c2", &["10.0.0.3"]))
        .expect("inserted");
    drop(store);
    let path = dir.path().join("attachments/weirfd61c7d1f13.json");
    let torn = fs::read_to_string(&path).expect("read").replace("\"mtu\"", "mtu");
    fs::write(&path, &torn).expect("written");

    let store = open(&dir);
    assert_eq!(
        store.attachments(),
        &BTreeMap::from([(id("c2"), attachment("c2", &["10.0.0.3"]))])
    );
    let aside = dir.path().join("unreadable/weirfd61c7d1f13.json");
    assert_eq!(fs::read_to_string(&aside).expect("kept"), torn);
    let expected = Unreadable {
        path: aside.clone(),
        why: "key must be a string at line 16 column 3".into(),
        addresses: BTreeSet::from([ip("10.0.0.2"), ip("fd00::2")]),
    };
    assert_eq!(
        store.unreadable(),
        &BTreeMap::from([("weirfd61c7d1f13".to_owned(), expected)])
    );
    drop(store);

    // It is still there after a restart, and is not given to another.
    let mut store = open(&dir);
    assert_eq!(
        store.in_use(),
        BTreeSet::from([ip("10.0.0.2"), ip("10.0.0.3"), ip("fd00::2")])
    );
    let error = store
        .insert(id("c3"), attachment("c3", &["fd00::2"]))
        .expect_err("taken");
    assert_eq!(
        error.to_string(),
        format!("c3: fd00::2 is taken already, by {}", aside.display())
    );

    // The end of its container ends it too.
    assert_eq!(store.remove(&id("c1")).expect("removed"), None);
    assert_eq!(store.unreadable(), &BTreeMap::new());
    assert_eq!(store.recently_freed(), [ip("10.0.0.2"), ip("fd00::2")]);
    assert_eq!(
        all_paths(dir.path()),
        [
            format!("attachments/{}.json", host_ifname("c2", "eth0")),
            "freed.json".into(),
            "lock".into()
        ]
    );
}

#[test]
fn a_second_file_that_makes_no_sense_does_not_replace_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    for address in ["10.0.0.2", "10.0.0.3"] {
        let path = dir.path().join("attachments/weir0.json");
        fs::write(path, format!("\"{address}\"")).expect("written");
        drop(open(&dir));
    }
    let mut store = open(&dir);
    assert_eq!(store.in_use(), BTreeSet::from([ip("10.0.0.2"), ip("10.0.0.3")]));
    assert!(store.forget_unreadable("weir0").expect("forgotten"));
    assert!(!store.forget_unreadable("weir0").expect("gone"));
    assert_eq!(store.in_use(), BTreeSet::new());
    assert_eq!(all_paths(dir.path()), ["freed.json", "lock"]);
}

#[test]
fn files_say_why_they_make_no_sense() {
    let whole = String::from_utf8(file::write(&id("c1"), &attachment("c1", &["10.0.0.2"])).expect("bytes"))
        .expect("UTF-8");
    let cases = [
        (
            whole.replace("\"version\": 1", "\"version\": 2"),
            "version is 2, and this agent knows 1",
        ),
        (whole.replace("\"mtu\"", "\"mut\""), "missing field `mtu`"),
        (
            whole.replace("weirfd61c7d1f13", "eth0"),
            "hostIfname is eth0, and that of the container is weirfd61c7d1f13",
        ),
        (whole.replace("\"10.0.0.2\"", ""), "addresses is empty"),
        (whole.replace("2026-01-02T", ""), "created: "),
        (String::new(), "EOF while parsing a value at line 1 column 0"),
    ];
    for (text, expected) in cases {
        let why = file::read(text.as_bytes()).expect_err(expected);
        assert!(why.starts_with(expected), "{why}");
    }

    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    fs::write(dir.path().join("attachments/other.json"), whole).expect("written");
    let store = open(&dir);
    assert_eq!(
        store.unreadable()["other"].why,
        "it belongs into weirfd61c7d1f13.json"
    );
}

#[test]
fn freed_addresses_that_make_no_sense_keep_nothing_from_being_given() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    fs::write(dir.path().join("freed.json"), "[\"10.0.0.2\"").expect("written");
    for _ in 0..2 {
        let store = open(&dir);
        assert_eq!(store.in_use(), BTreeSet::new());
        assert_eq!(store.recently_freed(), [] as [IpAddr; 0]);
        assert_eq!(store.unreadable().keys().collect::<Vec<_>>(), ["freed"]);
    }
    assert_eq!(all_paths(dir.path()), ["lock", "unreadable/freed.json"]);
}

#[test]
fn a_crash_between_two_steps_of_removing_leaves_the_attachment() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    store
        .insert(id("c1"), attachment("c1", &["10.0.0.2"]))
        .expect("inserted");
    store.free(vec![ip("10.0.0.2")]).expect("freed");
    drop(store);
    let store = open(&dir);
    assert_eq!(
        store.attachments(),
        &BTreeMap::from([(id("c1"), attachment("c1", &["10.0.0.2"]))])
    );
    assert_eq!(store.recently_freed(), [] as [IpAddr; 0]);
}

#[test]
fn what_a_crash_left_unfinished_is_swept() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    let unfinished = dir.path().join("attachments/.weir0.json.weir-new");
    fs::write(&unfinished, "{").expect("written");
    let store = open(&dir);
    assert_eq!(store.unreadable(), &BTreeMap::new());
    assert!(!unfinished.exists());
}

#[test]
fn one_agent_has_it_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let error = Store::open(dir.path()).expect_err("open already");
    assert_eq!(
        error.to_string(),
        format!("{}: another agent has the store open", dir.path().display())
    );
    drop(store);
    open(&dir);
}
