//! One transaction's record, or one output.

use std::str::FromStr;

use groundtackle_chain::hash::to_hex;
use groundtackle_chain::{OutPoint, TxOut, Txid};
use groundtackle_utxo_store::{MinedIn, OutputView, Record, SlotState, UtxoStore, UtxoStoreExt};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::report::{Report, output};

#[derive(Clone, Copy, Debug)]
pub enum Target {
    Transaction(Txid),
    Output(OutPoint),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            text.parse::<OutPoint>()
                .map(Self::Output)
                .map_err(|error| error.to_string())
        } else {
            text.parse::<Txid>()
                .map(Self::Transaction)
                .map_err(|error| error.to_string())
        }
    }
}

pub async fn run(store: &dyn UtxoStore, target: Target, report: Report) -> Result<()> {
    let (json, text) = match target {
        Target::Transaction(txid) => match store.record(txid).await? {
            Some(record) => (record_json(&record)?, record_text(&record)),
            None => return no(report, format!("the store has no transaction {txid}")),
        },
        Target::Output(outpoint) => match store.output(outpoint).await? {
            Ok(view) => (to_json(&view)?, view_text(&view)),
            Err(verdict) => return no(report, verdict.to_string()),
        },
    };
    report.answer(&json, &text)
}

fn no(report: Report, why: String) -> Result<()> {
    report.json(&())?;
    Err(Failure::No(why))
}

fn to_json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| output(error.into()))
}

/// A record, with each slot's state beside what it follows from.
fn record_json(record: &Record) -> Result<Value> {
    let mut json = to_json(record)?;
    let outputs = json.get_mut("outputs").and_then(Value::as_array_mut);
    for (json, output) in outputs.into_iter().flatten().zip(&record.outputs) {
        if let Some(json) = json.as_object_mut() {
            json.insert("state".into(), to_json(&output.state())?);
        }
    }
    Ok(json)
}

fn record_text(record: &Record) -> String {
    let mut lines = vec![
        format!("transaction   {}", record.txid),
        format!("coinbase      {}", yes(record.coinbase)),
        format!("size          {} bytes", record.size_bytes),
        format!("lock time     {}", record.lock_time),
    ];
    lines.extend(record.fee_sat.map(|fee| format!("fee           {fee} sat")));
    lines.extend(record.mined_in.iter().map(mined_text));
    lines.extend(
        record
            .unmined_since
            .map(|height| format!("unmined since height {height}")),
    );
    lines.extend(
        record
            .preserve_until
            .map(|height| format!("preserved until height {height}")),
    );
    lines.extend(flags(record.locked, record.conflicting));
    let children = record.conflicting_children.iter();
    lines.extend(children.map(|txid| format!("conflicts with its child {txid}")));
    let inputs = record.inputs.iter().enumerate();
    lines.extend(inputs.map(|(vin, outpoint)| format!("input {vin}: {outpoint}")));
    lines.extend(record.outputs.iter().map(|output| {
        let state = output.state();
        format!(
            "output {}: {}",
            output.vout,
            output_text(&output.output, state)
        )
    }));
    lines.join("\n")
}

fn view_text(view: &OutputView) -> String {
    let mut lines = vec![
        format!("output        {}", view.outpoint),
        output_text(&view.output, view.state),
        format!("coinbase      {}", yes(view.coinbase)),
    ];
    lines.push(match view.height {
        Some(height) => format!("confirmed at height {height}"),
        None => "not confirmed".into(),
    });
    lines.extend(flags(view.locked, view.conflicting));
    lines.join("\n")
}

fn output_text(output: &TxOut, state: SlotState) -> String {
    let state = match state {
        SlotState::Unspent => "unspent".into(),
        SlotState::Spent(by) => format!("spent by input {} of {}", by.vin, by.txid),
        SlotState::Frozen => "frozen".into(),
        SlotState::Reassigned { spendable_from } => {
            format!("reassigned, spendable from height {spendable_from}")
        }
    };
    let script = to_hex(output.script.as_bytes());
    format!("{} sat, {state}, script {script}", output.value_sat)
}

fn mined_text(mined: &MinedIn) -> String {
    let block = mined
        .block
        .map_or("of a snapshot".into(), |block| block.to_string());
    let chain = if mined.on_longest_chain {
        ""
    } else {
        ", not on the longest chain"
    };
    format!(
        "mined in      block {block} at height {}{chain}",
        mined.height
    )
}

fn flags(locked: bool, conflicting: bool) -> impl Iterator<Item = String> {
    let set = [(locked, "locked"), (conflicting, "conflicting")];
    set.into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| name.into())
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
