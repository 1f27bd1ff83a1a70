//! Servers, each in a folder of its own on a free port, and a node with real blocks.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs};

use async_trait::async_trait;
use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{
    BlockHash, BlockStore, ChainBlock, MemoryUtxoStore, ScanStore, Script, Transaction, TxOut, Txid,
};
use migrate_live::{Blocks, Error};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const UP_WITHIN: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A server, for as long as a test needs it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    // Last, so that it goes when the server is gone.
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

fn until_up(mut child: Child, port: u16, folder: TempDir) -> Server {
    let until = Instant::now() + UP_WITHIN;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the server has ended");
        assert!(Instant::now() < until, "the server does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    Server {
        child,
        port,
        _folder: folder,
    }
}

/// Of Debian's package, under a user that PostgreSQL accepts.
fn postgres_program(name: &str, data: &Path) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut programs: Vec<_> = versions
        .map(|at| at.unwrap().path().join("bin").join(name))
        .collect();
    programs.sort();
    let program = programs.pop().unwrap_or_else(|| name.into());
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let user =
        fs::metadata("/var/lib/postgresql").expect("Debian's package postgresql makes its user");
    chown(data, Some(user.uid()), Some(user.gid())).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
        ])
        .arg(program);
    command
}

pub fn postgres() -> Server {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let made = postgres_program("initdb", &data)
        .arg("--pgdata")
        .arg(&data)
        .args([
            "--username=postgres",
            "--auth=trust",
            "--locale=C",
            "--encoding=UTF8",
            "--no-sync",
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = free_port();
    let child = postgres_program("postgres", &data)
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = until_up(child, port, folder);
    // It listens before it lets anybody in.
    let ready = |pid: &PathBuf| fs::read_to_string(pid).is_ok_and(|text| text.contains("ready"));
    let until = Instant::now() + UP_WITHIN;
    while !ready(&data.join("postmaster.pid")) {
        assert!(Instant::now() < until, "PostgreSQL does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

impl Server {
    /// A store of its own.
    pub fn postgres_url(&self, schema: &str) -> String {
        let port = self.port;
        format!(
            "postgres://postgres@127.0.0.1:{port}/postgres?schema={schema}&tls=off&allow_unsafe_durability=true"
        )
    }
}

/// Where Aerospike is, if anywhere: `HOST:PORT` of a server that is there, or of `asd` on the PATH, which is started.
pub fn aerospike() -> Option<(String, Option<Server>)> {
    if let Ok(address) = env::var("GROUNDTACKLE_TEST_AEROSPIKE") {
        return Some((address, None));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).find(|folder| folder.join("asd").is_file())?;
    let folder = TempDir::new().unwrap();
    let place = folder.path().display();
    let (port, fabric, heartbeat) = (free_port(), free_port(), free_port());
    for name in ["smd", "lua"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let config = format!(
        "service {{\n cluster-name test\n proto-fd-max 1024\n work-directory {place}\n pidfile {place}/pid\n}}\n\
         logging {{\n file {place}/log {{\n  context any info\n }}\n}}\n\
         network {{\n service {{\n  address 127.0.0.1\n  access-address 127.0.0.1\n  port {port}\n }}\n \
         fabric {{\n  address 127.0.0.1\n  port {fabric}\n }}\n \
         heartbeat {{\n  mode mesh\n  address 127.0.0.1\n  port {heartbeat}\n  interval 150\n  timeout 10\n }}\n}}\n\
         mod-lua {{\n user-path {place}/lua\n}}\n\
         namespace test {{\n replication-factor 1\n conflict-resolution-policy last-update-time\n nsup-period 0\n \
         storage-engine memory {{\n  data-size 1024M\n }}\n}}\n"
    );
    fs::write(folder.path().join("conf"), config).unwrap();
    let child = Command::new("asd")
        .args(["--foreground", "--config-file"])
        .arg(folder.path().join("conf"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = until_up(child, port, folder);
    // It listens before its partitions are there.
    std::thread::sleep(Duration::from_secs(3));
    Some((format!("127.0.0.1:{port}"), Some(server)))
}

/// Main net blocks 0 to 199.
pub async fn real_blocks() -> Vec<ChainBlock> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data");
    let config = BlockFilesConfig::new(Network::Main);
    let mut files = BlockFiles::open(vec![folder], config).await.unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = files.next_block().await.unwrap() {
        blocks.push(block);
    }
    assert_eq!(blocks.len(), 200);
    blocks
}

/// The digest after these blocks, from the specification.
pub async fn digest_after(blocks: &[ChainBlock]) -> [u8; 32] {
    let store = MemoryUtxoStore::new();
    for block in blocks {
        store.connect_block(block).await.unwrap().unwrap();
    }
    store.digest().await.unwrap().muhash
}

/// A block of a branch that loses, with nothing but its coinbase.
pub fn losing_block(previous: &ChainBlock, branch: u8) -> ChainBlock {
    let height = previous.height + 1;
    let mut bytes = [branch; 32];
    bytes[..4].copy_from_slice(&height.to_le_bytes());
    let output = TxOut {
        value_sat: 50,
        script: Script::from_bytes(vec![0x51]),
    };
    let coinbase = Transaction {
        txid: Txid::from_bytes(bytes),
        inputs: Vec::new(),
        outputs: vec![output],
        lock_time: 0,
        size_bytes: 100,
        coinbase: true,
    };
    ChainBlock {
        height,
        hash: BlockHash::from_bytes(bytes),
        previous: previous.hash,
        median_time_past: previous.median_time_past,
        transactions: vec![coinbase],
        coinbase_may_overwrite: false,
    }
}

/// Has the blocks that it was given.
#[derive(Clone, Debug, Default)]
pub struct Node(Arc<Mutex<HashMap<BlockHash, ChainBlock>>>);

impl Node {
    pub fn of(blocks: &[ChainBlock]) -> Self {
        let node = Self::default();
        blocks.iter().for_each(|block| node.add(block));
        node
    }

    pub fn add(&self, block: &ChainBlock) {
        self.0.lock().unwrap().insert(block.hash, block.clone());
    }
}

#[async_trait]
impl Blocks for Node {
    async fn block(&self, hash: &BlockHash) -> Result<ChainBlock, Error> {
        let block = self.0.lock().unwrap().get(hash).cloned();
        block.ok_or_else(|| Error::Refused(format!("there is no block {hash}")))
    }
}
