//! What is sent. All of it works on sets; each connection prepares all of it once.
//!
//! Locks are taken in one order by everyone: the chain's row, then records ascending, then outputs
//! ascending, then what is inserted, ascending. So nobody waits in a circle.
//!
//! Outputs need not be locked when they are read: a change says in which version it saw each (`xmin`, which
//! no lock changes), and happens only where none has another one by now.

use futures_util::future::try_join_all;
use tokio_postgres::{Client, Statement};

use crate::error::{Failed, failed, no_answer};

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)+) => {
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Statement,)+
        }

        impl Statements {
            /// Prepares all at once.
            pub(crate) async fn prepare(client: &Client) -> Result<Self, Failed> {
                let action = "prepare statements";
                let prepared = try_join_all([$($sql),+].map(|sql| client.prepare(sql)));
                let prepared = prepared.await.map_err(|error| failed(action, error))?;
                let mut prepared = prepared.into_iter();
                let mut next = || prepared.next().ok_or_else(|| no_answer(action));
                Ok(Self { $($name: next()?),+ })
            }
        }
    };
}

macro_rules! records {
    ($lock:literal) => {
        concat!(
            "SELECT t.txid, t.coinbase, t.locked, t.conflicting, t.fee_sat, t.size_bytes, t.lock_time,
                    t.unmined_since, t.preserve_until, t.mined_in, t.conflicting_children,
                    CASE WHEN a.inputs THEN t.inputs END
             FROM unnest($1::bytea[], $2::boolean[]) AS a (txid, inputs)
             JOIN transactions t ON t.txid = a.txid",
            $lock
        )
    };
}

macro_rules! slots {
    ($lock:literal) => {
        concat!(
            "SELECT o.txid, o.vout, o.value_sat, o.script, o.spent_by, o.spent_vin, o.frozen, o.spendable_from,
                    o.xmin
             FROM unnest($1::bytea[], $2::bigint[]) AS a (txid, vout)
             JOIN outputs o ON o.txid = a.txid AND o.vout = a.vout",
            $lock
        )
    };
}

macro_rules! update_slots {
    ($before:literal, $set:literal, $arrays:literal, $columns:literal, $as_well:literal, $after:literal) => {
        concat!(
            $before,
            "UPDATE outputs o SET spent_by = a.spent_by, spent_vin = a.spent_vin",
            $set,
            " FROM unnest($1::bytea[], $2::bigint[], $3::integer[], $4::bytea[], $5::bigint[]",
            $arrays,
            ") AS a (txid, vout, seen, spent_by, spent_vin",
            $columns,
            ") WHERE o.txid = a.txid AND o.vout = a.vout AND o.xmin = a.seen",
            $as_well,
            $after
        )
    };
    // What is spent is free and not frozen. The version alone would not tell for ever: the server gives its
    // numbers again after 2^32 transactions, and what nobody has changed since still has an old one.
    (spent, $before:literal, $after:literal) => {
        update_slots!(
            $before,
            "",
            "",
            "",
            " AND o.spent_by IS NULL AND NOT o.frozen",
            $after
        )
    };
    (all, $before:literal, $after:literal) => {
        update_slots!(
            $before,
            ", frozen = a.frozen, spendable_from = a.spendable_from",
            ", $6::boolean[], $7::bigint[]",
            ", frozen, spendable_from",
            "",
            $after
        )
    };
}

macro_rules! or_fail {
    ($columns:ident) => {
        update_slots!(
            $columns,
            "WITH changed AS (",
            " RETURNING 1) SELECT 1 / (count(*) = cardinality($1))::integer FROM changed"
        )
    };
}

statements! {
    chain = "SELECT tip_height, tip_hash, tip_median_time_past, muhash FROM chain";
    chain_locked = "SELECT tip_height, tip_hash, tip_median_time_past, muhash FROM chain FOR UPDATE";
    records = records!("");
    /// Against those who change the records, not against those who spend other outputs of them.
    records_shared = records!(" ORDER BY t.txid FOR KEY SHARE OF t");
    records_locked = records!(" ORDER BY t.txid FOR UPDATE OF t");
    slots = slots!("");
    slots_locked = slots!(" ORDER BY o.txid, o.vout FOR NO KEY UPDATE OF o");
    /// What a block spends, with as much of its records as judging that takes.
    slots_of_block =
        "SELECT t.txid, a.vout, o.value_sat, o.script, o.spent_by, o.spent_vin, o.frozen, o.spendable_from, o.xmin,
                t.coinbase, t.locked, t.conflicting, t.confirmed_height
         FROM unnest($1::bytea[], $2::bigint[]) AS a (txid, vout)
         JOIN transactions t ON t.txid = a.txid
         LEFT JOIN outputs o ON o.txid = a.txid AND o.vout = a.vout";
    outputs =
        "SELECT o.txid, o.vout, o.value_sat, o.script, o.spent_by, o.spent_vin, o.frozen, o.spendable_from,
                o.xmin
         FROM unnest($1::bytea[]) AS a (txid) JOIN outputs o ON o.txid = a.txid";
    outputs_ordered =
        "SELECT o.txid, o.vout, o.value_sat, o.script, o.spent_by, o.spent_vin, o.frozen, o.spendable_from
         FROM (SELECT DISTINCT txid FROM unnest($1::bytea[]) AS a (txid)) a JOIN outputs o ON o.txid = a.txid
         ORDER BY o.txid, o.vout";
    undo =
        "SELECT hash, height, previous_height, previous_hash, previous_median_time_past, undo, replaced_coinbase
         FROM blocks WHERE hash = ANY ($1)";
    existing = "SELECT count(*) FROM transactions WHERE txid = ANY ($1)";
    views =
        "SELECT a.number, t.txid, t.coinbase, t.locked, t.conflicting, t.confirmed_height,
                o.vout, o.value_sat, o.script, o.spent_by, o.spent_vin, o.frozen, o.spendable_from
         FROM unnest($1::bytea[], $2::bigint[]) WITH ORDINALITY AS a (txid, vout, number)
         JOIN transactions t ON t.txid = a.txid
         LEFT JOIN outputs o ON o.txid = a.txid AND o.vout = a.vout";
    unmined =
        "SELECT txid, unmined_since FROM transactions
         WHERE unmined_since IS NOT NULL AND txid > $1 AND ($2::bigint IS NULL OR unmined_since < $2)
         ORDER BY txid LIMIT $3";
    delete_outputs = "DELETE FROM outputs WHERE txid = ANY ($1)";
    delete_records = "DELETE FROM transactions WHERE txid = ANY ($1)";
    insert_records =
        "INSERT INTO transactions (txid, coinbase, locked, conflicting, fee_sat, size_bytes, lock_time,
             unmined_since, confirmed_height, preserve_until, mined_in, conflicting_children, inputs)
         SELECT * FROM unnest($1::bytea[], $2::boolean[], $3::boolean[], $4::boolean[], $5::bigint[], $6::bigint[],
             $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[])";
    insert_outputs =
        "INSERT INTO outputs (txid, vout, value_sat, spent_vin, spendable_from, coinbase, frozen, script, spent_by)
         SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[],
             $7::boolean[], $8::bytea[], $9::bytea[])";
    copy_records =
        "COPY transactions (txid, coinbase, locked, conflicting, fee_sat, size_bytes, lock_time,
             unmined_since, confirmed_height, preserve_until, mined_in, conflicting_children, inputs)
         FROM STDIN (FORMAT binary)";
    copy_outputs =
        "COPY outputs (txid, vout, value_sat, spent_vin, spendable_from, coinbase, frozen, script, spent_by)
         FROM STDIN (FORMAT binary)";
    update_records =
        "UPDATE transactions t SET locked = a.locked, conflicting = a.conflicting, fee_sat = a.fee_sat,
             unmined_since = a.unmined_since, confirmed_height = a.confirmed_height,
             preserve_until = a.preserve_until, mined_in = a.mined_in,
             conflicting_children = a.conflicting_children
         FROM unnest($1::bytea[], $2::boolean[], $3::boolean[], $4::bigint[], $5::bigint[], $6::bigint[],
                     $7::bigint[], $8::bytea[], $9::bytea[])
              AS a (txid, locked, conflicting, fee_sat, unmined_since, confirmed_height, preserve_until,
                    mined_in, conflicting_children)
         WHERE t.txid = a.txid";
    /// Tells by its count whether all of them were as they had been seen.
    spend_slots = update_slots!(spent, "", "");
    update_slots = update_slots!(all, "", "");
    /// Fails on a division by zero where one was not.
    spend_slots_or_fail = or_fail!(spent);
    update_slots_or_fail = or_fail!(all);
    update_scripts =
        "UPDATE outputs o SET script = a.script
         FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS a (txid, vout, script)
         WHERE o.txid = a.txid AND o.vout = a.vout";
    update_chain =
        "UPDATE chain SET tip_height = $1, tip_hash = $2, tip_median_time_past = $3, muhash = $4";
    insert_undo =
        "INSERT INTO blocks (hash, height, previous_height, previous_hash, previous_median_time_past, undo,
             replaced_coinbase) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (hash) DO UPDATE SET height = excluded.height, previous_height = excluded.previous_height,
             previous_hash = excluded.previous_hash,
             previous_median_time_past = excluded.previous_median_time_past, undo = excluded.undo,
             replaced_coinbase = excluded.replaced_coinbase";
    delete_undo = "DELETE FROM blocks WHERE hash = $1";
    insert_expiring = "INSERT INTO expiring (height, txids) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
    number_call =
        "INSERT INTO calls (connection, last_call) VALUES ($1, $2)
         ON CONFLICT (connection) DO UPDATE SET
             last_call = excluded.last_call / (CASE WHEN calls.last_call = -1 THEN 0 ELSE 1 END), touched = now()";
    /// Fences the connection, which must not be used again. A call that is under way holds the row, so this
    /// waits for it; one that comes later finds -1, fails on its division by zero, and is rolled back.
    /// It always writes: when its own commit is answered, standbys have what came before, too.
    last_call =
        "INSERT INTO calls (connection, last_call) VALUES ($1, -1)
         ON CONFLICT (connection) DO UPDATE SET
             last_call = CASE WHEN calls.last_call = $2 THEN $2 ELSE -1 END, touched = now() RETURNING last_call";
    forget_calls = "DELETE FROM calls WHERE touched < now() - interval '1 day'";
    previous_tip =
        "SELECT b.previous_height, b.previous_hash, b.previous_median_time_past
         FROM chain c JOIN blocks b ON b.hash = c.tip_hash";
    blocks_below = "SELECT hash, undo FROM blocks WHERE height <= $1 ORDER BY height LIMIT 1";
    inputs_of = "SELECT inputs FROM transactions WHERE txid = ANY ($1)";
    expiring =
        "SELECT height, number, txids FROM expiring WHERE height <= $1 ORDER BY height, number LIMIT $2";
    delete_expiring =
        "DELETE FROM expiring e USING unnest($1::bigint[], $2::bigint[]) AS a (height, number)
         WHERE e.height = a.height AND e.number = a.number";
    preserved =
        "SELECT txid, preserve_until FROM transactions WHERE txid = ANY ($1) AND preserve_until > $2";
    /// Of those named, what nothing above the horizon needs.
    done =
        "SELECT t.txid FROM unnest($1::bytea[]) AS a (txid) JOIN transactions t ON t.txid = a.txid
         WHERE t.confirmed_height <= $2 AND (t.preserve_until IS NULL OR t.preserve_until <= $2)
           AND NOT EXISTS (
             SELECT FROM outputs o WHERE o.txid = t.txid AND (o.spent_by IS NULL OR EXISTS (
               SELECT FROM transactions s WHERE s.txid = o.spent_by
                 AND (s.confirmed_height IS NULL OR s.confirmed_height > $2))))";
    conflicting =
        "SELECT txid FROM transactions
         WHERE unmined_since IS NOT NULL AND txid > $1 AND conflicting AND unmined_since <= $2
           AND (preserve_until IS NULL OR preserve_until <= $2)
         ORDER BY txid LIMIT $3";
    coins =
        "SELECT o.txid, o.vout, o.value_sat, o.script, o.coinbase, t.confirmed_height
         FROM outputs o JOIN transactions t ON t.txid = o.txid
         WHERE (o.txid, o.vout) > ($1, $2) AND o.txid >= $1 AND o.txid < $3 AND t.confirmed_height IS NOT NULL
           AND (o.spent_by IS NULL OR EXISTS (
             SELECT FROM transactions s WHERE s.txid = o.spent_by AND s.confirmed_height IS NULL))
         ORDER BY o.txid, o.vout LIMIT $4";
    spendable_coinbase =
        "SELECT o.txid, o.vout, o.value_sat, o.script, t.confirmed_height
         FROM outputs o JOIN transactions t ON t.txid = o.txid
         WHERE o.coinbase AND sha256(o.script) = sha256($1) AND o.script = $1
           AND t.confirmed_height <= $2 AND o.spent_by IS NULL AND NOT o.frozen
           AND (o.spendable_from IS NULL OR o.spendable_from <= $3) AND NOT t.locked AND NOT t.conflicting
           AND NOT EXISTS (
             SELECT FROM reservations r WHERE r.txid = o.txid AND r.vout = o.vout AND r.expires > clock_timestamp())
         ORDER BY t.confirmed_height, o.txid, o.vout LIMIT $4";
    lock_script = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || encode($1::bytea, 'hex'), 7021003))";
    insert_reservations =
        "INSERT INTO reservations (txid, vout, owner, expires)
         SELECT a.txid, a.vout, $3, clock_timestamp() + make_interval(secs => $4)
         FROM unnest($1::bytea[], $2::bigint[]) AS a (txid, vout)
         ON CONFLICT (txid, vout) DO UPDATE SET owner = excluded.owner, expires = excluded.expires";
    release =
        "DELETE FROM reservations r USING unnest($1::bytea[], $2::bigint[]) AS a (txid, vout)
         WHERE r.txid = a.txid AND r.vout = a.vout AND r.owner = $3 AND r.expires > clock_timestamp()
         RETURNING r.vout";
    end_reservations =
        "DELETE FROM reservations r USING unnest($1::bytea[], $2::bigint[]) AS a (txid, vout)
         WHERE r.txid = a.txid AND r.vout = a.vout";
    tidy_reservations =
        "DELETE FROM reservations r WHERE r.expires <= clock_timestamp() OR NOT EXISTS (
             SELECT FROM outputs o WHERE o.txid = r.txid AND o.vout = r.vout AND o.spent_by IS NULL)
         RETURNING r.vout";
}
