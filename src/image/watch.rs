//! The watch over served images (promise 1): the kernel's notices, and a look at each file every
//! second.
//!
//! Invariants:
//! - The watch hangs on the open file, never on its path: a file put in its place is not mistaken
//!   for it.
//! - A block device is watched for writes through its node; writes below it (a mounted file system)
//!   show to nobody.
//! - Without notices (no inotify left, a network file system) the regular look still finds a
//!   change.

use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Image;
use crate::limits::IMAGE_CHECK_EVERY;

/// A thread that watches images until this is dropped.
#[derive(Debug)]
pub struct Watch {
    /// Nothing is ever written to it: the thread wakes when it is closed.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch `images`. Their warm marks grow old from now on, too.
    ///
    /// # Errors
    /// No descriptor or thread to be had.
    pub fn start(images: Vec<Arc<Image>>) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let mut watcher = Watcher::new(images);
        let thread = std::thread::Builder::new()
            .name("image-watch".to_owned())
            .spawn(move || watcher.run(&stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An image and the number its notices carry.
struct Watched {
    image: Arc<Image>,
    number: Option<i32>,
}

struct Watcher {
    images: Vec<Watched>,
    notices: Option<OwnedFd>,
}

impl Watcher {
    fn new(images: Vec<Arc<Image>>) -> Self {
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .inspect_err(|error| {
                tracing::warn!(
                    "no inotify ({error}): a changed image is noticed within \
                     {IMAGE_CHECK_EVERY:?} only"
                );
            })
            .ok();
        let images = images
            .into_iter()
            .map(|image| Watched {
                number: notices.as_ref().and_then(|fd| add(fd, &image)),
                image,
            })
            .collect();
        Self { images, notices }
    }

    fn run(&mut self, stop: &PipeReader) {
        // What happened between the opening and now.
        self.look();
        let mut next = Instant::now() + IMAGE_CHECK_EVERY;
        while !self.wait(stop, next.saturating_duration_since(Instant::now())) {
            self.take_notices();
            if Instant::now() >= next {
                self.look();
                self.images.iter().for_each(|w| w.image.tick());
                next = Instant::now() + IMAGE_CHECK_EVERY;
            }
        }
    }

    /// Waits for a notice, the end of `time` or the stop, and says whether it was the stop.
    fn wait(&self, stop: &PipeReader, time: Duration) -> bool {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        if let Some(notices) = &self.notices {
            fds.push(PollFd::new(notices, PollFlags::IN));
        }
        let time = Timespec::try_from(time).unwrap_or_default();
        // An interrupted wait is one that ended early.
        rustix::event::poll(&mut fds, Some(&time)).is_ok()
            && fds.first().is_some_and(|stop| !stop.revents().is_empty())
    }

    /// Works off every notice that has come, and waits for none.
    fn take_notices(&mut self) {
        let Some(notices) = self.notices.take() else {
            return;
        };
        let mut buf = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&notices, &mut buf);
        loop {
            match reader.next() {
                Ok(event) => self.take_notice(&notices, event.wd(), event.events()),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.notices = Some(notices);
    }

    fn take_notice(&mut self, notices: &OwnedFd, number: i32, events: ReadFlags) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.look();
        }
        // One file may be served under two names.
        let watched = self.images.iter_mut().filter(|w| w.number == Some(number));
        for Watched { image, number } in watched {
            if events.contains(ReadFlags::MODIFY) {
                image.saw_write();
            }
            if events.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF) {
                image.saw_rename();
            }
            // An `IN_ATTRIB` may be a `touch`, a `chmod` or the loss of the last name.
            if image.verify_now().is_err() {
                // More notices would tell nothing new, and a busy writer sends many.
                if let Some(number) = number.take() {
                    let _ = inotify::remove_watch(notices, number);
                }
            }
        }
    }

    fn look(&self) {
        for Watched { image, .. } in &self.images {
            // A failed image has told so itself.
            let _ = image.verify_now();
        }
    }
}

fn add(notices: &OwnedFd, image: &Image) -> Option<i32> {
    let events =
        WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(notices, image.file.proc_path(), events)
        .inspect_err(|error| {
            tracing::warn!(
                "image {} gets no inotify watch ({error}): a change is noticed within \
                 {IMAGE_CHECK_EVERY:?} only",
                image.name
            );
        })
        .ok()
}

#[cfg(test)]
mod tests;
