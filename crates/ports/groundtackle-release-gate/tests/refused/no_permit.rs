use groundtackle_release_gate::{Action, Deployer, Digest, Result};

async fn act(deployer: &dyn Deployer, artefact: &Digest) -> Result<()> {
    deployer.deploy(artefact, "production", Action::Deploy).await
}

fn main() {
    let _ = act;
}
