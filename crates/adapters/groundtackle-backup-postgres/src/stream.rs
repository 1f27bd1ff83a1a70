//! What all backups of a server have in common: programs whose output becomes a tree.

use groundtackle_backup::{BackUp, Repository, Result};
use groundtackle_backup_files::{Made, StreamedBackup, StreamedTree};

use crate::config::PostgresBackupConfig;
use crate::program::{Children, Program};

/// Puts what programs bring into a tree.
pub(crate) type Fill = fn(&mut StreamedTree<'_>, &PostgresBackupConfig, &Children) -> Result<()>;

/// Backs up what `fill` brings. The programs that it starts end with this.
pub(crate) async fn back_up(
    config: &PostgresBackupConfig,
    repository: &Repository,
    how: &BackUp<'_>,
    whole: bool,
    fill: Fill,
) -> Result<Made> {
    let children = Children::default();
    let _ends_with_this = children.end_on_drop();
    let config = config.clone();
    let backup = StreamedBackup::new(config.state.clone());
    let fill = move |tree: &mut StreamedTree<'_>| fill(tree, &config, &children);
    backup.back_up(repository, how, whole, fill).await
}

/// What came of reading all that a program sends, and of the program.
pub(crate) fn ended(program: Program, read: Result<()>, children: &Children) -> Result<()> {
    if read.is_err() && !program.has_stalled() && !program.has_closed() {
        // It is not to blame: what it sends is not taken.
        return read;
    }
    // How it ended says more than what is missing for that.
    program.finish(children)?;
    read
}
