//! Lists the restore points of a repository, and unpacks the set at one block.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use groundtackle_backup_unpack::{At, Error, Hex, Identities, Repository, Result};

const USAGE: &str = "\
Reads backups of a UTXO store, or of a tree of files: the objects of a repository, in a folder, each in the file that its key names.

    groundtackle-backup-unpack list   --repository FOLDER --trust KEY
    groundtackle-backup-unpack unpack --repository FOLDER --trust KEY --at WHERE --identity FILE --out FILE
    groundtackle-backup-unpack tree   --repository FOLDER --trust KEY --identity FILE --out FOLDER

    --repository FOLDER  where the objects are: repository.json, points, packs, forgotten
    --trust KEY          the public key of a host that writes backups, 64 hexadecimal digits; may be repeated
    --at WHERE           latest, a height, or: block HASH, with the hash as nodes print it
    --identity FILE      secret keys, as age-keygen writes them
    --out FILE           the table to write, a new file: txid,vout,height,coinbase,value_sat,script_hex
                         of a tree: a new directory
    --point NAME         the restore point of a tree; the one made last where none is named
    --stream NAME        what was backed up, where a repository has several streams

Exit codes:
    0  done
    2  the command line is wrong
   65  bad data: an object is damaged, missing, or of a newer format, or what came out differs
   66  there is no repository, or no restore point leads to what is asked for
   74  reading or writing failed
   77  nobody who is trusted signed it, or no identity opens it
";

fn wrong(what: impl Into<String>) -> Error {
    Error::InvalidRequest(what.into())
}

/// Values are not told: a secret may stand there by mistake.
fn text(value: OsString) -> Result<String> {
    let text = value.into_string();
    text.map_err(|_| wrong("one of the arguments is no text"))
}

/// Options with their values.
struct Options(Vec<(String, OsString)>);

impl Options {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut options = Vec::new();
        while let Some(option) = arguments.next() {
            let option = text(option)?;
            let mut value = || arguments.next().ok_or_else(|| wrong("a value is missing"));
            options.push((option.clone(), value()?));
            if let Some((_, last)) = options
                .last_mut()
                .filter(|(name, value)| name == "--at" && value == "block")
            {
                *last = value()?;
                options
                    .last_mut()
                    .into_iter()
                    .for_each(|(name, _)| name.push_str(" block"));
            }
        }
        Ok(Self(options))
    }

    fn optional(&mut self, name: &str) -> Option<OsString> {
        let at = self.0.iter().position(|(option, _)| option == name)?;
        Some(self.0.remove(at).1)
    }

    fn required(&mut self, name: &str) -> Result<OsString> {
        let value = self.optional(name);
        value.ok_or_else(|| wrong(format!("{name} is missing: see --help")))
    }
}

fn run(to: &mut impl Write) -> Result<()> {
    let failed = |error| Error::Io("standard output".into(), error);
    let mut arguments = std::env::args_os().skip(1);
    let command = text(arguments.next().unwrap_or_default())?;
    if matches!(&*command, "--help" | "-h" | "help") {
        return to.write_all(USAGE.as_bytes()).map_err(failed);
    }
    let mut options = Options::read(arguments)?;
    let folder = options.required("--repository")?;
    let mut trusted: Vec<Hex<32>> = vec![text(options.required("--trust")?)?.try_into()?];
    while let Some(key) = options.optional("--trust") {
        trusted.push(text(key)?.try_into()?);
    }
    let known = |options: Options| match options.0.is_empty() {
        true => Ok(()),
        false => Err(wrong("an option is unknown, or there twice: see --help")),
    };
    match &*command {
        "list" => {
            known(options)?;
            let repository = Repository::open(folder, &trusted)?;
            for point in repository.points() {
                let forgotten = match repository.is_forgotten(point) {
                    true => " forgotten",
                    false => "",
                };
                writeln!(to, "{point}{forgotten}").map_err(failed)?;
            }
            for error in repository.passed_over().iter().chain(repository.unusable()) {
                writeln!(to, "not usable: {error}").map_err(failed)?;
            }
            let (bad, all) = (repository.unusable().len(), repository.points().len());
            match bad {
                0 => Ok(()),
                _ => Err(Error::Damaged(
                    "points".into(),
                    format!("{bad} can't be used, {all} can"),
                )),
            }
        }
        "unpack" => {
            let at = match options.optional("--at block") {
                Some(hash) => At::Block(Hex::try_from(text(hash)?)?.reversed()),
                None => match &*text(options.required("--at")?)? {
                    "latest" => At::Latest,
                    height => At::Height(height.parse().map_err(|_| wrong("--at is no height"))?),
                },
            };
            let identities = Identities::read(options.required("--identity")?.as_ref())?;
            let out = options.required("--out")?;
            let stream = options.optional("--stream").map(text).transpose()?;
            known(options)?;
            let repository = Repository::open(folder, &trusted)?;
            let (at, set) = repository.unpack(stream.as_deref(), at, &identities, out.as_ref())?;
            let (hash, muhash) = (at.hash.reversed(), set.muhash.reversed());
            writeln!(
                to,
                "{} coins at height {}, block {hash}, MuHash {muhash}: as signed",
                set.coins, at.height
            )
            .map_err(failed)
        }
        #[cfg(target_os = "linux")]
        "tree" => {
            let identities = Identities::read(options.required("--identity")?.as_ref())?;
            let out = options.required("--out")?;
            let stream = options.optional("--stream").map(text).transpose()?;
            let point = options.optional("--point").map(text).transpose()?;
            let point = point.map(Hex::try_from).transpose()?;
            known(options)?;
            let repository = Repository::open(folder, &trusted)?;
            let unpacked = repository.unpack_tree(
                stream.as_deref(),
                point.as_ref(),
                &identities,
                out.as_ref(),
            );
            let (entries, bytes) = unpacked?;
            let line = writeln!(to, "{entries} entries, {bytes} bytes in files: as signed");
            line.map_err(failed)
        }
        _ => Err(wrong("write list, unpack or tree first: see --help")),
    }
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let Err(error) = run(&mut out) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    let cause = std::error::Error::source(&error);
    cause
        .into_iter()
        .for_each(|cause| eprintln!("  because: {cause}"));
    ExitCode::from(match error {
        Error::InvalidRequest(_) => 2,
        Error::Unreachable(_) => 66,
        Error::Missing(object) if object == "repository.json" => 66,
        Error::Io(..) => 74,
        Error::Untrusted(_) | Error::WrongKey(..) => 77,
        _ => 65,
    })
}
