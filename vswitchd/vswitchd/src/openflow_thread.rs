//! The thread that OpenFlow connections are served on.
//!
//! One for all bridges: a message and its reply cost a wait, a read and a write. With several, each event would wake another
//! thread to look whether there is more to do, which costs more than carrying out a flow-mod; and one thread changes tables faster
//! than several that take turns.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::awake::Awake;

/// How long names that are being looked up may take in the end.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// The thread. Ends, and what is served with it, when it is dropped.
pub(crate) struct OpenFlowThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OpenFlowThread {
    /// Starts it; `awake` hears of how long it sleeps.
    ///
    /// # Errors
    /// When there are no threads or descriptors left.
    pub(crate) fn start(awake: Arc<Awake>) -> std::io::Result<OpenFlowThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("openflow".to_owned()).spawn(move || {
            runtime.spawn(async move { awake.run().await });
            // A sender that is dropped is as good.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(END_DEADLINE);
        })?;
        Ok(OpenFlowThread { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// The way to have something served on it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it, for whoever waits for threads with a deadline.
    pub(crate) fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.stop.take();
        self.thread.take()
    }
}

impl Drop for OpenFlowThread {
    fn drop(&mut self) {
        if let Some(t) = self.stop() {
            let _ = t.join();
        }
    }
}
