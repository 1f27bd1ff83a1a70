use groundtackle_release_gate::Permit;

fn twice(permit: &Permit) -> [Permit; 2] {
    [permit.clone(), *permit]
}

fn main() {
    let _ = twice;
}
