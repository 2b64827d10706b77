//! The runtime of a shard, and the one door through which raw submissions reach it.
//!
//! Invariants:
//! - What an operation owns is freed only after its completion. While the runtime lives, the driver
//!   of tokio-uring holds the data of dropped futures. When it ends, the driver drops that data
//!   *before* it has cancelled the operations, so [`Held`] hands it to `FREED_LATE` instead, which
//!   is emptied once the driver is gone.
//! - Only opcodes with exactly one completion are submitted: tokio-uring panics on a second one.
//! - Submissions reach the kernel when the thread is about to sleep: no task may keep it from that,
//!   see [`yield_now`].
//! - The flags of the ring are the default ones. With SINGLE_ISSUER and DEFER_TASKRUN tokio-uring
//!   waits forever, since it never asks the kernel for deferred completions.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::task::Poll;

use io_uring::{cqueue, opcode, squeue};
use tokio::task::JoinHandle;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use super::writer;
use crate::limits;

/// Runs `future` on a new ring and runtime, both of this thread, until it is done.
///
/// Tasks that are still running then are dropped, their operations cancelled and waited for, and
/// so is work that was given to [`offload`].
///
/// # Errors
/// Where the kernel gives no ring: the message says why and what to do. Where this thread runs a
/// ring already.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    if PHASE.get() != Phase::NoRing {
        return Err(io::Error::other("this thread runs a ring already"));
    }
    // Dropped from the last to the first: mark the end, end the runtime, free what it left.
    let _last = FreeLate;
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(limits::RING_ENTRIES))
        .map_err(|error| explain(error, ring_sysctl()))?;
    let _first = MarkEnd;
    PHASE.set(Phase::Running);
    Ok(runtime.block_on(future))
}

/// Starts a task on the ring of this thread.
///
/// # Panics
/// Where no ring runs on this thread.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio_uring::spawn(task)
}

/// Runs `work`, which may block, on a thread of its own; the shard goes on meanwhile.
///
/// Dropping the future does not stop `work`. A panic in it is passed on to the caller.
///
/// # Panics
/// Where `work` panics, or no ring runs on this thread.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is ending, and will drop this task next.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Gives way to the other tasks of the shard, and to the ring.
///
/// tokio's own `yield_now` will not do: tokio-uring submits only when the thread is about to sleep,
/// which tokio never does while a task has yielded. A loop around it stops every operation of the
/// shard. This waits for an operation that does nothing, so that the thread gets to that point.
pub async fn yield_now() {
    // SAFETY: NOP completes once, and uses neither memory nor a descriptor.
    let (result, ()) = unsafe { submit(opcode::Nop::new().build(), ()) }.await;
    // A NOP has nothing that could fail.
    drop(result);
}

/// Lets the tasks that are ready run first, and no more: the ring is not looked at.
///
/// Cheaper than [`yield_now`], and not for a loop without a bound, for the same reason as tokio's.
pub async fn give_way() {
    let mut has_given = false;
    std::future::poll_fn(|context| {
        if has_given {
            return Poll::Ready(());
        }
        has_given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Submits `entry` and waits for its completion: the kernel's count or error, and `data` back.
///
/// # Safety
/// - `entry` has exactly one completion.
/// - Whatever it points at is owned by `data`, or static, and stays in place when `data` moves.
/// - `data` keeps the descriptor of `entry` open.
/// - Nothing uses that memory in a way that conflicts with the kernel's use while `data` is away.
/// - Dropping `data` does not touch the ring: the driver is borrowed then.
pub(super) async unsafe fn submit<D>(entry: squeue::Entry, data: D) -> (io::Result<usize>, D)
where
    D: Unpin + 'static,
{
    UnsubmittedOneshot::new(Held::new(data), Completion(PhantomData), entry)
        .submit()
        .await
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    NoRing,
    Running,
    /// The driver drops the data of operations that the kernel may still work on.
    Ending,
}

thread_local! {
    static PHASE: Cell<Phase> = const { Cell::new(Phase::NoRing) };
    static FREED_LATE: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

struct MarkEnd;

impl Drop for MarkEnd {
    fn drop(&mut self) {
        PHASE.set(Phase::Ending);
    }
}

struct FreeLate;

impl Drop for FreeLate {
    fn drop(&mut self) {
        PHASE.set(Phase::NoRing);
        drop(FREED_LATE.take());
        writer::end();
    }
}

/// What an operation owns, on its way through the driver.
struct Held<D: 'static> {
    data: ManuallyDrop<D>,
}

impl<D: 'static> Held<D> {
    fn new(data: D) -> Self {
        Self {
            data: ManuallyDrop::new(data),
        }
    }

    fn into_inner(self) -> D {
        let mut held = ManuallyDrop::new(self);
        // SAFETY: `held` is not used again, and its own drop, the only other taker, never runs.
        unsafe { ManuallyDrop::take(&mut held.data) }
    }
}

impl<D: 'static> Drop for Held<D> {
    fn drop(&mut self) {
        // SAFETY: a drop runs once, and `into_inner` prevents it.
        let data = unsafe { ManuallyDrop::take(&mut self.data) };
        if PHASE.get() == Phase::Ending {
            FREED_LATE.with_borrow_mut(|late| late.push(Box::new(data)));
        }
    }
}

struct Completion<D>(PhantomData<D>);

impl<D: 'static> OneshotOutputTransform for Completion<D> {
    type Output = (io::Result<usize>, D);
    type StoredData = Held<D>;

    fn transform_oneshot_output(self, data: Held<D>, entry: cqueue::Entry) -> Self::Output {
        let answer = entry.result();
        let result = usize::try_from(answer).map_err(|_| io::Error::from_raw_os_error(-answer));
        (result, data.into_inner())
    }
}

/// What `kernel.io_uring_disabled` says: 0 for all, 1 for the privileged, 2 for nobody.
fn ring_sysctl() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

/// The error of `io_uring_setup` in words that say what to do.
fn explain(error: io::Error, sysctl: Option<u8>) -> io::Error {
    let advice = match (error.raw_os_error(), sysctl) {
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring, or a sandbox hides it: use Linux 5.19 or later, and a \
             container whose seccomp profile allows io_uring_setup, io_uring_enter and \
             io_uring_register"
        }
        (Some(libc::EPERM), Some(2)) => {
            "io_uring is switched off on this host: set `sysctl kernel.io_uring_disabled=0`"
        }
        (Some(libc::EPERM), Some(1)) => {
            "io_uring is kept for privileged users on this host: set \
             `sysctl kernel.io_uring_disabled=0`, or put this user into the group named by \
             kernel.io_uring_group"
        }
        (Some(libc::EPERM), _) => {
            "a sandbox forbids io_uring: the container's seccomp profile must allow \
             io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "no descriptor for the ring: raise the limit on open files (`ulimit -n`)"
        }
        (Some(libc::ENOMEM), _) => {
            "no memory for the ring: raise the limit on locked memory (`ulimit -l`) or use fewer \
             shards"
        }
        _ => "the kernel gave no ring",
    };
    io::Error::new(error.kind(), format!("io_uring: {advice} ({error})"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use io_uring::types;

    use super::*;

    /// Notes in which phase of the thread it was dropped.
    struct Probe(Rc<Cell<Option<Phase>>>);

    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.set(Some(PHASE.get()));
        }
    }

    /// Waits for `socket` to become readable.
    async fn readable(socket: Rc<UnixStream>, probe: Probe) -> io::Result<usize> {
        let fd = types::Fd(socket.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN.cast_unsigned().into()).build();
        // SAFETY: the entry points at no memory, and its data keeps the descriptor open.
        unsafe { submit(entry, (socket, probe)) }.await.0
    }

    #[test]
    fn the_result_of_the_future_comes_back() {
        assert_eq!(run(async { 7 }).unwrap(), 7);
    }

    #[test]
    fn a_ring_inside_a_ring_is_refused() {
        assert!(run(async { run(async {}).is_err() }).unwrap());
    }

    #[test]
    fn a_thread_runs_one_ring_after_another() {
        run(async {}).unwrap();
        run(async {}).unwrap();
    }

    #[test]
    fn memory_of_a_dropped_operation_lives_until_its_completion() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let dropped_in = Rc::new(Cell::new(None));
        let probe = Probe(dropped_in.clone());
        run(async move {
            let mut pending = Box::pin(readable(Rc::new(ours), probe));
            std::future::poll_fn(|context| {
                assert!(pending.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(pending);
            yield_now().await;
            assert_eq!(dropped_in.get(), None);
            drop(theirs);
            while dropped_in.get().is_none() {
                yield_now().await;
            }
        })
        .unwrap();
    }

    #[test]
    fn memory_of_an_operation_outlives_the_driver_when_the_runtime_ends() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let dropped_in = Rc::new(Cell::new(None));
        let probe = Probe(dropped_in.clone());
        run(async {
            spawn(readable(Rc::new(ours), probe));
            yield_now().await;
        })
        .unwrap();
        assert_eq!(dropped_in.get(), Some(Phase::NoRing));
    }

    #[test]
    fn memory_of_an_operation_outlives_the_driver_when_the_future_panics() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let dropped_in = Rc::new(Cell::new(None));
        let probe = Probe(dropped_in.clone());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run(async {
                spawn(readable(Rc::new(ours), probe));
                yield_now().await;
                panic!("on purpose");
            })
        }));
        assert!(outcome.is_err());
        assert_eq!(dropped_in.get(), Some(Phase::NoRing));
        assert_eq!(run(async { 1 }).unwrap(), 1);
    }

    #[test]
    fn a_task_that_yields_in_a_loop_does_not_hold_up_the_ring() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        run(async {
            spawn(async {
                loop {
                    yield_now().await;
                }
            });
            let probe = Probe(Rc::default());
            let pending = spawn(readable(Rc::new(ours), probe));
            yield_now().await;
            drop(theirs);
            pending.await.unwrap().unwrap();
        })
        .unwrap();
    }

    #[test]
    fn who_gives_way_goes_on_behind_the_tasks_that_are_ready() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let ours = Rc::clone(&order);
        run(async move {
            let theirs = Rc::clone(&ours);
            let other = spawn(async move { theirs.borrow_mut().push("ready") });
            give_way().await;
            ours.borrow_mut().push("gave way");
            other.await.unwrap();
        })
        .unwrap();
        assert_eq!(*order.borrow(), ["ready", "gave way"]);
    }

    #[test]
    fn offloaded_work_runs_beside_the_shard() {
        let shard = std::thread::current().id();
        let worker = run(offload(|| std::thread::current().id())).unwrap();
        assert_ne!(shard, worker);
    }

    #[test]
    fn a_panic_in_offloaded_work_reaches_the_caller() {
        let outcome = catch_unwind(|| run(offload(|| panic!("on purpose"))));
        let panic = outcome.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }

    #[test]
    fn each_reason_for_a_missing_ring_has_its_advice() {
        let words = |errno, sysctl| {
            let error = explain(io::Error::from_raw_os_error(errno), sysctl);
            error.to_string()
        };
        assert!(words(libc::ENOSYS, None).contains("no io_uring"));
        assert!(words(libc::EPERM, Some(2)).contains("kernel.io_uring_disabled=0"));
        assert!(words(libc::EPERM, Some(1)).contains("kernel.io_uring_group"));
        assert!(words(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(words(libc::ENOMEM, Some(0)).contains("ulimit -l"));
        assert!(words(libc::EMFILE, Some(0)).contains("ulimit -n"));
    }
}
