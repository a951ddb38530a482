//! Builds programs, once, into the cache. Go's own caches make a second build of something else quick.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::go_module;
use crate::lock::lock;
use crate::places;
use crate::process;
use crate::progress::Progress;
use crate::recipes::{Group, Kind, Module, Program};

/// Where a program is, or will be.
///
/// # Errors
/// There is no cache.
pub fn path(program: &Program) -> Result<PathBuf> {
    Ok(folder(program.module)?.join("bin").join(program.name))
}

/// Builds what is missing of these groups. Only one process builds at a time; others wait for it.
///
/// # Errors
/// There is no Go compiler, a module is not what its recipe says, or does not build.
pub fn ensure(groups: &[Group], progress: Progress) -> Result<()> {
    let programs: Vec<_> = groups.iter().flat_map(|group| group.programs()).collect();
    if missing(&programs)?.is_empty() {
        return Ok(());
    }
    let _lock = lock("build", progress)?;
    let missing = missing(&programs)?;
    if !missing.is_empty() {
        progress
            .say("programs are missing and built once; all of them take some twelve minutes on two cores");
    }
    for (index, program) in missing.iter().enumerate() {
        progress.say(format_args!(
            "building {} {} ({} of {})",
            program.name,
            program.module.version,
            index + 1,
            missing.len()
        ));
        build(program).with_context(|| format!("building {}", program.name))?;
    }
    Ok(())
}

fn missing(programs: &[&'static Program]) -> Result<Vec<&'static Program>> {
    let mut missing = Vec::new();
    for program in programs {
        if !is_built(program)? && !missing.contains(program) {
            missing.push(*program);
        }
    }
    Ok(missing)
}

/// Built by this very recipe: it is on record beside the program.
fn is_built(program: &Program) -> Result<bool> {
    let recorded = fs::read_to_string(record(program)?).unwrap_or_default();
    Ok(recorded == arguments(program).join("\n") && path(program)?.is_file())
}

fn record(program: &Program) -> Result<PathBuf> {
    Ok(folder(program.module)?
        .join("bin")
        .join(format!(".{}.recipe", program.name)))
}

fn folder(module: &Module) -> Result<PathBuf> {
    Ok(places::root()?.join(format!(
        "{}-{}",
        module.name,
        module.version.trim_start_matches('v')
    )))
}

fn build(program: &Program) -> Result<()> {
    let module = prepare(program.module)?;
    let target = path(program)?;
    let fresh = target.with_extension("new");
    places::create_dir(&folder(program.module)?.join("bin"), 0o755)?;
    let mut command = go(&module)?;
    command
        .env("CGO_ENABLED", if program.c { "1" } else { "0" })
        .args(arguments(program))
        .arg("-o")
        .arg(&fresh)
        .arg(program.package);
    process::run(&mut command)?;
    // Renamed, so that a program that runs is not written to, and one that is half-written is not found.
    fs::rename(&fresh, &target).with_context(|| format!("renaming {}", fresh.display()))?;
    places::write(&record(program)?, arguments(program).join("\n"))
}

/// All that decides what is built, apart from the package.
fn arguments(program: &Program) -> Vec<String> {
    let mut linker = vec!["-s".to_owned(), "-w".to_owned()];
    for (name, value) in program.variables {
        linker.push(format!("-X {name}={value}"));
    }
    if program.c {
        linker.push("-extldflags -static".to_owned());
    }
    let mut arguments: Vec<String> = match program.kind {
        Kind::Main => vec!["build".to_owned()],
        Kind::Tests => vec!["test".to_owned(), "-c".to_owned()],
    };
    arguments.extend(["-mod=mod", "-trimpath", "-buildvcs=false"].map(str::to_owned));
    if !program.tags.is_empty() {
        arguments.push(format!("-tags={}", program.tags));
    }
    arguments.push(format!("-ldflags={}", linker.join(" ")));
    arguments
}

/// Go at low priority: a build takes minutes, and the machine has other things to do.
fn go(directory: &Path) -> Result<Command> {
    let mut command = Command::new("nice");
    command
        .args(["-n", "10"])
        .arg(go_program()?)
        .current_dir(directory)
        .env("GOCACHE", places::root()?.join("go-build"))
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    Ok(command)
}

fn go_program() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/local/go/bin")]);
    let mut candidates = folders.map(|folder| folder.join("go"));
    match candidates.find(|candidate| candidate.is_file()) {
        Some(go) => Ok(go),
        None => bail!(
            "Kubernetes is built with Go, and there is none on PATH: install Go 1.26 or newer (https://go.dev/dl)"
        ),
    }
}

/// What `go mod download -json` says of a module.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: Option<PathBuf>,
    sum: Option<String>,
    go_mod_sum: Option<String>,
    error: Option<String>,
}

/// Writes the module that the programs of a module are built in. Its folder.
fn prepare(module: &Module) -> Result<PathBuf> {
    let folder = folder(module)?.join("module");
    places::create_dir(&folder, 0o755)?;
    let (source, go_mod_sum) = download(module)?;
    let go_mod = go_module::go_mod(module, &places::read(&source.join("go.mod"))?)?;
    let own_sums = places::read(&source.join("go.sum"))?;
    let Module {
        path, version, sum, ..
    } = module;
    let go_sum = format!("{own_sums}{path} {version} {sum}\n{path} {version}/go.mod {go_mod_sum}\n");
    let written = places::read(&folder.join("go.mod")).unwrap_or_default();
    // Go adds to both files what they lack; an unchanged recipe keeps that.
    if !written.starts_with(&go_mod) {
        places::write(&folder.join("go.mod"), go_mod)?;
        places::write(&folder.join("go.sum"), go_sum)?;
    }
    Ok(folder)
}

/// The source folder of a module in Go's cache, and the hash of its go.mod.
fn download(module: &Module) -> Result<(PathBuf, String)> {
    let name = format!("{}@{}", module.path, module.version);
    // In a folder without a module, so that nothing but the name decides.
    let mut command = go(Path::new("/"))?;
    command.args(["mod", "download", "-json", &name]);
    let output = process::output(&mut command)?;
    let downloaded: Downloaded =
        serde_json::from_slice(&output).with_context(|| format!("what go says of {name}"))?;
    let (Some(dir), Some(sum), Some(go_mod_sum)) = (downloaded.dir, downloaded.sum, downloaded.go_mod_sum)
    else {
        bail!("{name}: {}", downloaded.error.unwrap_or_default());
    };
    if sum != module.sum {
        bail!("{name} is {sum}, and its recipe says {}", module.sum);
    }
    Ok((dir, go_mod_sum))
}

/// The folder of a module's sources, for the files that are not programs.
///
/// # Errors
/// As [`ensure`].
pub fn source(module: &Module) -> Result<PathBuf> {
    download(module).map(|(source, _)| source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipes::{E2E_TEST, RUNC_PROGRAM};

    #[test]
    fn the_command_follows_the_recipe() {
        assert_eq!(
            arguments(&RUNC_PROGRAM),
            [
                "build",
                "-mod=mod",
                "-trimpath",
                "-buildvcs=false",
                "-tags=seccomp,netgo,osusergo",
                "-ldflags=-s -w -X main.version=v1.5.2 -extldflags -static",
            ]
        );
        assert_eq!(arguments(&E2E_TEST)[..2], ["test", "-c"]);
    }
}
