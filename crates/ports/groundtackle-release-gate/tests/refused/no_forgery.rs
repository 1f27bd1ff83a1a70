use groundtackle_release_gate::{Decision, Permit};

fn forge(decision: Decision) -> Permit {
    Permit(decision)
}

fn main() {
    let _ = forge;
}
