//! Where drills restore clusters and dumps to.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_backup::{
    DrillLevel, Error, KeyUnwrapping, Manifest, Proof, Repository, Result, TreeGround, TreeSummary,
};
use groundtackle_backup_files::{DirectoryGround, RestoreOptions, Restored};

use crate::config::{ClusterRestoreOptions, PostgresBackupConfig, Verify, program_in};
use crate::dump::restore_dump_as;
use crate::error::stopped;
use crate::program::{Children, Program, command};
use crate::restore::{RestoredCluster, restore_cluster};
use crate::serve::ScratchServer;

/// How long a server may take to recover by the log that came with it.
const START_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What is asked of a server that was started on a restored cluster.
#[async_trait]
pub trait ClusterProbe: std::fmt::Debug + Send + Sync {
    /// What it found, at least one thing; kept in clear, so without secrets.
    ///
    /// # Errors
    /// When the answer is wrong, or there is none.
    async fn probe(&self, server: &ScratchServer) -> Result<Vec<Proof>>;
}

/// A scratch directory for a cluster. At [`DrillLevel::Load`] it is restored into it, compared with what was signed, and found
/// whole by `pg_verifybackup`, which has to be there. With a probe, good for [`DrillLevel::Serve`]: a server is started on it,
/// which recovers, is asked, and stops. As root it runs as whom the cluster belongs to. It stays afterwards, as the server left
/// it: removing it is the caller's.
///
/// The server listens at a socket of its own alone, archives nothing, replicates from nobody, and loads no libraries that
/// run jobs: nothing of production is touched by it.
#[derive(Debug)]
pub struct ClusterGround {
    directory: DirectoryGround,
    options: ClusterRestoreOptions,
    probe: Option<Box<dyn ClusterProbe>>,
    start_timeout: Duration,
    restored: Option<RestoredCluster>,
}

impl ClusterGround {
    /// A directory that is new or empty. Whatever the options say, `pg_verifybackup` is [required](Verify::Require).
    ///
    /// # Errors
    /// When there is no directory for it to be in.
    pub fn new(path: &Path, options: ClusterRestoreOptions) -> Result<Self> {
        Ok(Self {
            directory: DirectoryGround::new(path, options.files)?,
            options: options.with_verify(Verify::Require),
            probe: None,
            start_timeout: START_TIMEOUT,
            restored: None,
        })
    }

    /// Asks a server on it at [`DrillLevel::Serve`].
    #[must_use]
    pub fn with_probe(mut self, probe: Box<dyn ClusterProbe>) -> Self {
        self.probe = Some(probe);
        self
    }

    /// How long the server may take until it is ready. Default: an hour.
    #[must_use]
    pub const fn with_start_timeout(mut self, start_timeout: Duration) -> Self {
        self.start_timeout = start_timeout;
        self
    }

    /// Starts a server, has it asked, and stops it.
    async fn serve(&self, version: u32, probe: &dyn ClusterProbe) -> Result<Vec<Proof>> {
        let children = Children::default();
        let _ends_with_this = children.end_on_drop();
        let (path, options) = (self.directory.path().to_owned(), self.options.clone());
        let (timeout, known) = (self.start_timeout, children.clone());
        let starting = tokio::task::spawn_blocking(move || {
            ScratchServer::start(&path, version, &options, timeout, &known)
        });
        let server = starting.await.map_err(stopped)??;
        let found = probe.probe(&server).await;
        let stopping = tokio::task::spawn_blocking(move || server.stop());
        let ended = stopping.await.map_err(stopped)?;
        let found = found?;
        ended?;
        Ok(found)
    }
}

fn proof(what: &str, found: impl Into<String>) -> Proof {
    Proof {
        what: what.into(),
        found: found.into(),
    }
}

#[async_trait]
impl TreeGround for ClusterGround {
    fn reach(&self) -> DrillLevel {
        match self.probe {
            Some(_) => DrillLevel::Serve,
            None => DrillLevel::Load,
        }
    }

    fn place(&self) -> Option<String> {
        self.directory.place()
    }

    fn touches(&self, production: &str) -> bool {
        self.directory.touches(production)
    }

    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary> {
        let options = self.options.clone();
        let path = self.directory.path();
        let restored = restore_cluster(repository, point, keys, path, options).await?;
        let tree = restored.restored.tree();
        self.restored = Some(restored);
        Ok(tree)
    }

    async fn prove(&mut self, level: DrillLevel, _: &TreeSummary) -> Result<Vec<Proof>> {
        let Some(restored) = &self.restored else {
            return Ok(Vec::new());
        };
        if !restored.verified {
            return Err(Error::invalid_request(
                "pg_verifybackup has not looked at the cluster",
            ));
        }
        let mut proofs = vec![
            proof("version of PostgreSQL", restored.version.to_string()),
            proof("pg_verifybackup", "the cluster is whole"),
        ];
        if let (true, Some(probe)) = (level >= DrillLevel::Serve, &self.probe) {
            let found = self.serve(restored.version, &**probe).await?;
            if found.is_empty() {
                return Err(Error::invalid_request(
                    "the probe asked nothing of the server, so nothing is proven",
                ));
            }
            proofs.extend(found);
        }
        Ok(proofs)
    }
}

/// Queries, asked by `psql`. One whose answer has no line, or whose first line is empty or `f`, fails the drill: let it be
/// `select count(*) > 1000 from payments`. First lines are kept in the evidence, in clear.
#[derive(Clone, Debug)]
pub struct QueryProbe {
    user: String,
    database: String,
    queries: Vec<String>,
    programs: Option<PathBuf>,
    timeout: Duration,
}

impl QueryProbe {
    /// As this role, of this database.
    ///
    /// # Errors
    /// `InvalidRequest` without a query, or for a database that is a connection string.
    pub fn new(
        user: impl Into<String>,
        database: impl Into<String>,
        queries: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let queries: Vec<_> = queries.into_iter().collect();
        if queries.is_empty() {
            return Err(Error::invalid_request("there is no query to ask"));
        }
        let (user, database) = (user.into(), database.into());
        PostgresBackupConfig::default()
            .with_user(Some(user.clone()))
            .with_database(Some(database.clone()))
            .check()?;
        Ok(Self {
            user,
            database,
            queries,
            programs: None,
            timeout: Duration::from_secs(10 * 60),
        })
    }

    /// The folder of `psql`. Default: that on the `PATH`.
    #[must_use]
    pub fn with_programs(mut self, programs: Option<PathBuf>) -> Self {
        self.programs = programs;
        self
    }

    /// How long a query may bring nothing. Default: 10 minutes.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn ask(&self, host: &Path, port: u16, query: &str, children: &Children) -> Result<Proof> {
        let mut command = command(&program_in(self.programs.as_deref(), "psql"));
        command
            .env("PGHOST", host)
            .env("PGPORT", port.to_string())
            .env("PGUSER", &self.user)
            .env("PGDATABASE", &self.database)
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--no-password", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--command={query}"));
        let mut program = Program::start("psql", command, self.timeout, children)?;
        program.close_input();
        let answer = program.line();
        // What follows is not asked for, and must not stop it.
        let _ = std::io::copy(&mut program, &mut std::io::sink());
        program.finish(children)?;
        match answer {
            Ok(Some(line)) if !line.is_empty() && line != "f" => Ok(proof(query, line)),
            Ok(found) => Err(Error::invalid_request(format!(
                "the restored server answers {query:?} with {}, and a line is wanted that is neither empty nor f",
                found.map_or("nothing".into(), |line| format!("{line:?}"))
            ))),
            Err(error) => Err(crate::error::Failed::start("psql", error)),
        }
    }
}

#[async_trait]
impl ClusterProbe for QueryProbe {
    async fn probe(&self, server: &ScratchServer) -> Result<Vec<Proof>> {
        let children = Children::default();
        let _ends_with_this = children.end_on_drop();
        let (probe, host, port) = (self.clone(), server.host().to_owned(), server.port());
        let asking = tokio::task::spawn_blocking(move || {
            let queries = probe.queries.iter();
            queries
                .map(|query| probe.ask(&host, port, query, &children))
                .collect()
        });
        asking.await.map_err(stopped)?
    }
}

/// A scratch directory for a dump, good for [`DrillLevel::Load`]: it is restored into it, compared with what was signed, and
/// `pg_restore` reads all of it, as far as to the statements that would fill a database. It stays: removing it is the
/// caller's.
#[derive(Debug)]
pub struct DumpGround {
    directory: DirectoryGround,
    programs: Option<PathBuf>,
    timeout: Duration,
    restored: Option<(PathBuf, Restored)>,
}

impl DumpGround {
    /// A directory that is new or empty. `programs` is the folder of `pg_restore`; without, that on the `PATH` is taken.
    ///
    /// # Errors
    /// When there is no directory for it to be in.
    pub fn new(path: &Path, programs: Option<PathBuf>) -> Result<Self> {
        let options = RestoreOptions::default().with_unprivileged(true);
        Ok(Self {
            directory: DirectoryGround::new(path, options)?,
            programs,
            timeout: Duration::from_secs(10 * 60),
            restored: None,
        })
    }

    /// How long `pg_restore` may bring nothing. Default: 10 minutes.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

#[async_trait]
impl TreeGround for DumpGround {
    fn reach(&self) -> DrillLevel {
        DrillLevel::Load
    }

    fn place(&self) -> Option<String> {
        self.directory.place()
    }

    fn touches(&self, production: &str) -> bool {
        self.directory.touches(production)
    }

    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary> {
        let path = self.directory.path();
        let (file, restored) = restore_dump_as(repository, point, keys, path).await?;
        let tree = restored.tree();
        self.restored = Some((file, restored));
        Ok(tree)
    }

    async fn prove(&mut self, _: DrillLevel, _: &TreeSummary) -> Result<Vec<Proof>> {
        let Some((file, _)) = &self.restored else {
            return Ok(Vec::new());
        };
        let children = Children::default();
        let _ends_with_this = children.end_on_drop();
        let mut command = command(&program_in(self.programs.as_deref(), "pg_restore"));
        command
            .arg(OsStr::new("--file=-"))
            .arg("--exit-on-error")
            .arg(file);
        let (timeout, known) = (self.timeout, children.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut program = Program::start("pg_restore", command, timeout, &known)?;
            program.close_input();
            let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0_u64);
            // How it ended says more than what could not be read.
            while let Ok(count) = program.read(&mut buffer)
                && count > 0
            {
                bytes = bytes.saturating_add(count as u64);
            }
            program.finish(&known)?;
            Ok::<_, Error>(bytes)
        });
        let bytes = reading.await.map_err(stopped)??;
        Ok(vec![proof(
            "bytes of statements that pg_restore makes of it",
            bytes.to_string(),
        )])
    }
}
