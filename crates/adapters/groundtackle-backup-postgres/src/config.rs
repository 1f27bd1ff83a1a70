//! Where the server is, and how it is backed up and restored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use groundtackle_backup::{Error, Result};
use groundtackle_backup_files::RestoreOptions;
use groundtackle_core::{ByteSize, Secret};
use serde::Deserialize;

/// How the connection is protected, in libpq's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SslMode {
    /// No TLS: for a server on this machine, or a network that nobody else listens to.
    Disable,
    /// TLS, with whoever answers.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority that names the host. Connections by Unix sockets have no TLS.
    #[default]
    VerifyFull,
}

impl SslMode {
    const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// A server to back up. All of it reaches PostgreSQL's programs by the environment that libpq reads, and nothing by their
/// arguments; of the environment of this process, they get `PATH` and `HOME`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresBackupConfig {
    /// The host's name or address, or the folder of its Unix socket. Default: what libpq was built with.
    pub host: Option<String>,
    /// The port. Default: what libpq was built with, 5432.
    pub port: Option<u16>,
    /// The role: for clusters one with `REPLICATION`, which `pg_hba.conf` lets in to the database `replication`. Default: the
    /// name of the user who runs this.
    pub user: Option<String>,
    /// The database that [`PostgresDump`](crate::PostgresDump) dumps; clusters need none. Default: none.
    pub database: Option<String>,
    /// The password. Default: none; `passfile` keeps it out of configs.
    pub password: Option<Secret>,
    /// A password file in libpq's format, readable to its owner alone. Default: `~/.pgpass`.
    pub passfile: Option<PathBuf>,
    /// TLS. Default `verify-full`.
    pub sslmode: SslMode,
    /// A PEM file with the certificates of the authorities that may vouch for the server. Default: `~/.postgresql/root.crt`.
    pub sslrootcert: Option<PathBuf>,
    /// A service in libpq's `pg_service.conf`, for everything else; what it has comes before what is set
    /// here, `sslmode` among it. Default: none.
    pub service: Option<String>,
    /// The folder of PostgreSQL's programs. Default: those on the `PATH`.
    pub programs: Option<PathBuf>,
    /// The file in which this host keeps what the last restore point has, so that the next one need not store it again;
    /// written anew after each backup, one for each stream. Without it each one is whole. Default: none.
    pub state: Option<PathBuf>,
    /// Has the server write its checkpoint at once, and not spread over minutes, in which no byte comes. Default true.
    pub fast_checkpoint: bool,
    /// Keeps the write-ahead log that a backup of a cluster needs from being removed while it runs, by a temporary replication
    /// slot, which `psql` holds. Default true.
    pub hold_wal: bool,
    /// Bytes a second that the server sends of a cluster at most, `"32KiB"` to `"1GiB"`. Default: no limit.
    pub max_rate: Option<ByteSize>,
    /// Wait so long for the server to take a connection, in whole seconds. Default `"30s"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// A program that brings nothing for this time is killed, and the backup fails. More than the server's
    /// `checkpoint_timeout` without `fast_checkpoint`. Default `"10m"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub stall_timeout: Duration,
}

impl Default for PostgresBackupConfig {
    fn default() -> Self {
        Self {
            host: None,
            port: None,
            user: None,
            database: None,
            password: None,
            passfile: None,
            sslmode: SslMode::default(),
            sslrootcert: None,
            service: None,
            programs: None,
            state: None,
            fast_checkpoint: true,
            hold_wal: true,
            max_rate: None,
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(10 * 60),
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl PostgresBackupConfig {
    setters! {
        with_host host: Option<String>,
        with_port port: Option<u16>,
        with_user user: Option<String>,
        with_database database: Option<String>,
        with_password password: Option<Secret>,
        with_passfile passfile: Option<PathBuf>,
        with_sslmode sslmode: SslMode,
        with_sslrootcert sslrootcert: Option<PathBuf>,
        with_service service: Option<String>,
        with_programs programs: Option<PathBuf>,
        with_state state: Option<PathBuf>,
        with_fast_checkpoint fast_checkpoint: bool,
        with_hold_wal hold_wal: bool,
        with_max_rate max_rate: Option<ByteSize>,
        with_connect_timeout connect_timeout: Duration,
        with_stall_timeout stall_timeout: Duration,
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refused = |what: &str| Err(Error::invalid_request(what));
        let texts = [&self.host, &self.user, &self.database, &self.service];
        let mut texts = texts.into_iter().flatten().map(String::as_str);
        let password = self.password.as_ref().map(Secret::expose);
        if texts.any(|text| text.is_empty() || text.contains('\0'))
            || password.is_some_and(|text| text.contains('\0'))
        {
            return refused(
                "host, user, database or service is empty, or has a zero byte: write it, or leave it out",
            );
        }
        // libpq takes a database's name with these for a connection string, and would read a password out of it.
        if self.database.as_ref().is_some_and(|name| {
            name.contains('=')
                || name.starts_with("postgres://")
                || name.starts_with("postgresql://")
        }) {
            return refused(
                "database is a connection string: write the database's name alone, and host, port and user by themselves",
            );
        }
        if self.connect_timeout < Duration::from_secs(2) {
            return refused("connect_timeout is below 2s, which libpq can't do: write more");
        }
        if self.stall_timeout.is_zero() {
            return refused("stall_timeout is 0: write how long a program may bring nothing");
        }
        let rates = ByteSize::new(32 << 10)..=ByteSize::mib(1024);
        if self.max_rate.is_some_and(|rate| !rates.contains(&rate)) {
            return refused("max_rate is not within 32KiB and 1GiB, which the server asks for");
        }
        Ok(())
    }

    /// What libpq is told.
    pub(crate) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut all = vec![
            // Messages that are recognised, and no time zone of a server.
            ("LC_ALL", "C".into()),
            ("PGAPPNAME", "groundtackle-backup".into()),
            (
                "PGCONNECT_TIMEOUT",
                self.connect_timeout.as_secs().to_string().into(),
            ),
            ("PGSSLMODE", self.sslmode.word().into()),
        ];
        let texts = [
            ("PGHOST", &self.host),
            ("PGUSER", &self.user),
            ("PGDATABASE", &self.database),
            ("PGSERVICE", &self.service),
        ];
        for (name, text) in texts {
            all.extend(text.as_ref().map(|text| (name, text.into())));
        }
        let paths = [
            ("PGPASSFILE", &self.passfile),
            ("PGSSLROOTCERT", &self.sslrootcert),
        ];
        for (name, path) in paths {
            all.extend(path.as_ref().map(|path| (name, path.into())));
        }
        all.extend(self.port.map(|port| ("PGPORT", port.to_string().into())));
        let password = self.password.as_ref();
        all.extend(password.map(|password| ("PGPASSWORD", password.expose().into())));
        all
    }

    /// Whom messages name.
    pub(crate) fn server(&self) -> String {
        match (&self.host, &self.service) {
            (Some(host), _) => match self.port {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            },
            (None, Some(service)) => format!("service {service}"),
            (None, None) => "the local server".into(),
        }
    }
}

/// Whether `pg_verifybackup` looks at a cluster before a restore is a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verify {
    /// Where it is there, of the cluster's version.
    #[default]
    WhereFound,
    /// Always: without it, the restore fails.
    Require,
    /// Never. What was signed is compared with what lies on the disk all the same.
    Skip,
}

/// How a cluster is restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterRestoreOptions {
    /// Owners: a server starts only on folders of the user who runs it. Restore as that user, or as root where it has the
    /// same number as on the server.
    pub files: RestoreOptions,
    /// Whether PostgreSQL verifies it as well. Default: where `pg_verifybackup` is found.
    pub verify: Verify,
    /// The folder of PostgreSQL's programs. Default: the usual folders of Debian and Red Hat for the cluster's version, then
    /// the `PATH`.
    pub programs: Option<PathBuf>,
    /// How long `pg_verifybackup` may take. Default: 12 hours.
    pub verify_timeout: Duration,
}

impl Default for ClusterRestoreOptions {
    fn default() -> Self {
        Self {
            files: RestoreOptions::default(),
            verify: Verify::default(),
            programs: None,
            verify_timeout: Duration::from_secs(12 * 60 * 60),
        }
    }
}

impl ClusterRestoreOptions {
    setters! {
        with_files files: RestoreOptions,
        with_verify verify: Verify,
        with_programs programs: Option<PathBuf>,
        with_verify_timeout verify_timeout: Duration,
    }
}

/// A program of PostgreSQL: in its folder, or on the path.
pub(crate) fn program_in(folder: Option<&Path>, name: &str) -> PathBuf {
    match folder {
        Some(folder) => folder.join(name),
        None => name.into(),
    }
}
