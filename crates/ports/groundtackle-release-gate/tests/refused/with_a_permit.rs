use groundtackle_release_gate::{Action, Deployer, Digest, Permit, Result};

async fn act(deployer: &dyn Deployer, artefact: &Digest, permit: Permit) -> Result<()> {
    deployer
        .deploy(artefact, "production", Action::Deploy, permit)
        .await
}

fn main() {
    let _ = act;
}
