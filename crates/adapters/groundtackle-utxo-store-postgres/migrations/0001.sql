-- Hashes are in internal order. Heights, indexes and amounts are bigint, as unsigned 32 bits fit no integer.

CREATE TABLE chain (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    schema_version bigint NOT NULL,
    unspendable text NOT NULL,
    tip_height bigint,
    tip_hash bytea,
    tip_median_time_past bigint,
    -- Numerator and denominator of the confirmed set's MuHash3072.
    muhash bytea NOT NULL
);

CREATE TABLE transactions (
    txid bytea NOT NULL,
    coinbase boolean NOT NULL,
    locked boolean NOT NULL,
    conflicting boolean NOT NULL,
    fee_sat bigint,
    size_bytes bigint NOT NULL,
    lock_time bigint NOT NULL,
    unmined_since bigint,
    -- Of the entry of `mined_in` that is on the longest chain.
    confirmed_height bigint,
    preserve_until bigint,
    -- 41 bytes each: block hash, height, subtree (big-endian), flags: 1 on the longest chain, 2 the hash is known.
    mined_in bytea NOT NULL,
    -- 32 bytes each.
    conflicting_children bytea NOT NULL,
    -- 36 bytes each: txid, index (big-endian).
    inputs bytea NOT NULL,
    PRIMARY KEY (txid)
) {partition_by};
{partitions transactions 85}
CREATE INDEX transactions_unmined ON transactions (txid) WHERE unmined_since IS NOT NULL;

-- No index has a column that a spend changes, and pages have room: a spend is a HOT update.
CREATE TABLE outputs (
    txid bytea NOT NULL,
    vout bigint NOT NULL,
    value_sat bigint NOT NULL,
    spent_vin bigint,
    spendable_from bigint,
    coinbase boolean NOT NULL,
    frozen boolean NOT NULL,
    script bytea NOT NULL,
    spent_by bytea,
    PRIMARY KEY (txid, vout)
) {partition_by};
{partitions outputs 75}

-- What connecting a block did, to take it back.
CREATE TABLE blocks (
    hash bytea PRIMARY KEY,
    height bigint NOT NULL,
    previous_height bigint,
    previous_hash bytea,
    previous_median_time_past bigint,
    -- For each transaction its txid, and what it was before if it was there.
    undo bytea NOT NULL,
    -- JSON.
    replaced_coinbase text
);
CREATE INDEX blocks_height ON blocks (height);

-- Records (32 bytes each) to look at when pruning to a height. Blocks that can be taken back have theirs in `blocks`.
CREATE TABLE expiring (
    height bigint NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    txids bytea NOT NULL,
    PRIMARY KEY (height, number)
);

-- The last call of each connection that changed something: tells whether a commit without an answer landed.
CREATE TABLE calls (
    connection bytea PRIMARY KEY,
    last_call bigint NOT NULL,
    touched timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
