//! The whole conformance kit against the recipe.
#![allow(clippy::expect_used, reason = "a test asserts")]

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use groundtackle_utxo_store::{Result, Txid, UnspendableRule};
use groundtackle_utxo_store_testkit::{Fault, Harness};
use rusqlite::{Connection, params};
use sqlite_store::SqliteUtxoStore;
use tempfile::TempDir;

struct SqliteHarness;

#[async_trait]
impl Harness for SqliteHarness {
    type Store = SqliteUtxoStore;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    async fn open(&self, place: &TempDir) -> Result<SqliteUtxoStore> {
        open(&path(place)).await
    }

    fn address(&self, place: &TempDir) -> Option<String> {
        Some(path(place).to_str()?.to_owned())
    }

    async fn open_at(&self, address: &str) -> Result<SqliteUtxoStore> {
        open(address.as_ref()).await
    }

    fn write_points(&self) -> &'static [&'static str] {
        &[
            "sqlite.create.drawn",
            "sqlite.create.done",
            "sqlite.commit.drawn",
            "sqlite.commit.done",
        ]
    }

    async fn set_fault(&self, place: &TempDir, fault: Fault, armed: bool) -> bool {
        let Fault::WrongRecord(asked, other) = fault else {
            return false;
        };
        let database = Connection::open(path(place)).expect("the file is there");
        // Unarmed, it is put back.
        let head: String = match armed {
            true => {
                let copy =
                    "INSERT OR REPLACE INTO meta SELECT 'kept', head FROM record WHERE txid = ?1";
                database
                    .execute(copy, [asked.as_bytes()])
                    .expect("a record");
                database.query_row(
                    "SELECT head FROM record WHERE txid = ?1",
                    [other.as_bytes()],
                    |row| row.get(0),
                )
            }
            false => database.query_row("SELECT value FROM meta WHERE name = 'kept'", (), |row| {
                row.get(0)
            }),
        }
        .expect("a record");
        misfile(&database, &asked, &head);
        true
    }
}

fn misfile(database: &Connection, txid: &Txid, head: &str) {
    let update = "UPDATE record SET head = ?2 WHERE txid = ?1";
    let rows = database.execute(update, params![txid.as_bytes(), head]);
    assert_eq!(rows, Ok(1));
}

fn path(place: &TempDir) -> PathBuf {
    place.path().join("utxo.sqlite")
}

async fn open(path: &Path) -> Result<SqliteUtxoStore> {
    SqliteUtxoStore::open(path, UnspendableRule::Core).await
}

groundtackle_utxo_store_testkit::conformance!(SqliteHarness);
