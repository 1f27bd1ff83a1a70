-- The tip, the set's digest and the rule, by name.
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

-- A transaction: all but inputs and outputs is JSON, of which some is searched for.
CREATE TABLE record (
    txid BLOB PRIMARY KEY, inputs TEXT NOT NULL, head TEXT NOT NULL, height INTEGER,
    coinbase AS (head ->> 'coinbase'), unmined_since AS (head ->> 'unmined_since'),
    conflicting AS (head ->> 'conflicting'), preserve_until AS (head ->> 'preserve_until')
) WITHOUT ROWID;
CREATE INDEX unmined ON record (txid, unmined_since, conflicting) WHERE unmined_since IS NOT NULL;

-- An output and its slot, in the order in which a scan walks.
CREATE TABLE output (
    txid BLOB, vout INTEGER, value_sat INTEGER NOT NULL, script BLOB NOT NULL, spender BLOB,
    vin INTEGER, frozen INTEGER NOT NULL, spendable_from INTEGER, PRIMARY KEY (txid, vout)
) WITHOUT ROWID;

-- What taking a block back needs.
CREATE TABLE undo (block BLOB PRIMARY KEY, height INTEGER NOT NULL, data TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX undo_by_height ON undo (height);

-- Records at which a pruning to that height has to look.
CREATE TABLE expiring (height INTEGER, txid BLOB, PRIMARY KEY (height, txid)) WITHOUT ROWID;
