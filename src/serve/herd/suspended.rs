//! Sessions that stop all together, and go on here or in another process.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Herd;
use crate::limits::SUSPEND_TIME;
use crate::overlay::Voucher;
use crate::serve::catalog::Target;
use crate::serve::shard::{Accepted, Lease, Leaving, ShardHandle, Suspended};

/// A session that had stopped, with its volume open again. It goes on by [`Reopened::serve`].
#[derive(Debug)]
pub(in crate::serve) struct Reopened {
    shard: ShardHandle,
    lease: Lease,
    accepted: Accepted,
}

impl Reopened {
    /// Lets it go on.
    pub(in crate::serve) fn serve(self) {
        self.shard.serve(self.lease, self.accepted);
    }
}

/// A session whose volume could not be opened again.
#[derive(Debug, thiserror::Error)]
#[error("{peer} used {key}: {why}")]
pub(in crate::serve) struct NotReopened {
    peer: String,
    key: String,
    why: String,
}

impl Herd {
    /// Flushes all overlays, for there to be less to do when they are closed.
    pub(in crate::serve) async fn flush(&self) {
        self.each_shard(|shard| async move { shard.flush().await })
            .await;
    }

    /// What volumes are open.
    pub(in crate::serve) async fn open_now(&self) -> Vec<Arc<Target>> {
        let open = self.each_shard(|shard| async move { shard.open_now().await });
        open.await.into_iter().flatten().collect()
    }

    /// Stops all sessions and parts with all overlays; an error where that takes too long, for
    /// [`Self::resume`].
    pub(in crate::serve) async fn suspend(
        &self,
        leaving: Leaving,
    ) -> Result<Vec<Suspended>, Vec<Suspended>> {
        let each = move |shard: ShardHandle| async move {
            let suspended = tokio::time::timeout(SUSPEND_TIME, shard.suspend(leaving)).await;
            suspended.ok().flatten()
        };
        let suspended = self.each_shard(each).await;
        let is_whole = suspended.iter().all(Option::is_some);
        let suspended = suspended.into_iter().flatten().flatten().collect();
        if is_whole {
            Ok(suspended)
        } else {
            Err(suspended)
        }
    }

    /// Lets sessions go on that were suspended.
    pub(in crate::serve) async fn resume(&self, mut suspended: Vec<Suspended>) {
        let rest = self.each_shard(|shard| async move { shard.resume().await });
        suspended.extend(rest.await.into_iter().flatten());
        for session in &mut suspended {
            // Another process has had the files.
            session.voucher = session.voucher.map(Voucher::doubted);
        }
        for reopened in self.reopen(suspended).await {
            match reopened {
                Ok(session) => session.serve(),
                Err(error) => tracing::error!("{error}: cut"),
            }
        }
    }

    /// Opens the volumes of sessions again, in the same order.
    pub(in crate::serve) async fn reopen(
        &self,
        suspended: Vec<Suspended>,
    ) -> Vec<Result<Reopened, NotReopened>> {
        let mut opening = JoinSet::new();
        for (number, session) in suspended.into_iter().enumerate() {
            let place = self.placement.join(&session.target.key);
            let shard = self.shards.get(place).cloned();
            opening.spawn(async move { (number, reopen(shard, session).await) });
        }
        let mut reopened = opening.join_all().await;
        reopened.sort_by_key(|(number, _)| *number);
        reopened.into_iter().map(|(_, session)| session).collect()
    }

    async fn each_shard<F>(&self, work: impl Fn(ShardHandle) -> F) -> Vec<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let works = self.shards.iter().cloned().map(work);
        works.collect::<JoinSet<_>>().join_all().await
    }
}

async fn reopen(shard: Option<ShardHandle>, session: Suspended) -> Result<Reopened, NotReopened> {
    let Suspended {
        target,
        accepted,
        voucher,
    } = session;
    let failed = |why: String| NotReopened {
        peer: accepted.standing.peer.clone(),
        key: target.key.to_string(),
        why,
    };
    let gone = || failed("the server is going down".to_owned());
    let shard = shard.ok_or_else(gone)?;
    let opened = shard.open(Arc::clone(&target), voucher).await;
    let opened = opened.ok_or_else(gone)?;
    let lease = opened.map_err(|error| failed(error.to_string()))?;
    Ok(Reopened {
        shard,
        lease,
        accepted,
    })
}
