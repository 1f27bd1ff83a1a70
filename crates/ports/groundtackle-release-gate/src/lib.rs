#![doc = include_str!("../README.md")]

mod decision;
mod digest;
mod dsse;
mod error;
mod evidence;
mod file_log;
mod gate;
mod hours;
mod incident;
mod judge;
mod locate;
mod log;
mod minutes;
mod permit;
mod policy;
mod replay;
mod source;
mod statement;
mod tag;
mod times;

pub use decision::{
    Action, Decision, Obligation, Passed, ROLLBACKS, Reason, Request, Verdict, When,
};
pub use digest::{Digest, Length, ParseDigestError, ParseLengthError};
pub use dsse::{ParsePublicKeyError, PublicKey, Signer};
pub use error::{Error, Result};
pub use evidence::{Change, Evidence, Fact, Resolution, RunOutcome, Vote, evidence_digest};
pub use file_log::FileLog;
pub use gate::{Gate, PolicyFormat};
pub use groundtackle_core::Retryability;
pub use hours::{
    Calendar, CalendarDate, Day, Hours, ParseDateError, ParseTimeError, ParseZoneError, TimeOfDay,
    TimeOfWeek, Zone,
};
pub use incident::{Incident, Moment, REPORT_TEMPLATE, incident_evidence};
pub use jiff::Timestamp;
pub use log::{Deployed, Entry, Head, MAX_RECORD_BYTES, Record, Verified, verify};
pub use minutes::{minutes_html, minutes_markdown};
pub use permit::{Clearance, Permit, PermitLedger, PermitRefused};
pub use policy::{
    BackupRule, Budget, ChecklistItem, Environment, Escalation, EscalationStep, Form, Freeze,
    IncidentsRule, MeetingRule, Overrides, Overrun, POLICY_VERSION, ParityRule, Person,
    PipelineRule, PlatformsRule, Policy, Quorum, Role, Rule, Seat, Severity, Shift, SoakRule,
    TestRule, Unit, Waiver, Window, WindowKind,
};
pub use replay::{Dora, Replayed, log_evidence, replay};
pub use source::{Collected, Deployer, EvidenceSource, collect, shared_names};
pub use tag::{ParseTagPatternError, TagPattern};
