//! The fuzzer starts from the samples, which lie beside it as files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use weir_datapath::testing::samples;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/parse");

#[test]
fn the_seeds_are_the_samples() {
    let samples: BTreeMap<String, Vec<u8>> = samples().into_iter().collect();
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        write(&samples);
    }
    let seeds = read();
    let names = |packets: &BTreeMap<String, Vec<u8>>| packets.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seeds), names(&samples), "UPDATE_SEEDS=1 writes them again");
    for (name, sample) in samples {
        assert_eq!(seeds[&name], sample, "{name}: UPDATE_SEEDS=1 writes it again");
    }
}

fn read() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(SEEDS).expect("the folder of the seeds");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry of the folder");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            (name, fs::read(entry.path()).expect("a seed"))
        })
        .collect()
}

fn write(samples: &BTreeMap<String, Vec<u8>>) {
    let folder = Path::new(SEEDS);
    if folder.exists() {
        fs::remove_dir_all(folder).expect("the old seeds can be removed");
    }
    fs::create_dir_all(folder).expect("the folder can be made");
    for (name, sample) in samples {
        fs::write(folder.join(name), sample).expect("a seed can be written");
    }
}
