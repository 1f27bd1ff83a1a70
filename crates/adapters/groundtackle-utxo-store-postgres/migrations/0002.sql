-- Coinbase outputs by owner; their script is not changed by a spend, so spends stay HOT.
CREATE INDEX outputs_coinbase ON outputs (sha256(script), txid, vout) WHERE coinbase;

-- Coinbase outputs that someone is about to spend.
CREATE TABLE reservations (
    txid bytea NOT NULL,
    vout bigint NOT NULL,
    owner text NOT NULL,
    expires timestamptz NOT NULL,
    PRIMARY KEY (txid, vout)
);
CREATE INDEX reservations_expires ON reservations (expires);
