//! The request to stop, from a signal or from a command, and the reload signal.

use tokio::sync::watch;

/// Asks for the end. Clones ask the same.
#[derive(Clone, Debug)]
pub struct StopRequest(watch::Sender<bool>);

/// Waits for the request to stop. Clones wait for the same.
#[derive(Clone, Debug)]
pub struct Stopped(watch::Receiver<bool>);

/// A new pair, not yet asked.
pub fn stop_channel() -> (StopRequest, Stopped) {
    let (tx, rx) = watch::channel(false);
    (StopRequest(tx), Stopped(rx))
}

impl StopRequest {
    /// Asks. Asking again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// A waiter.
    pub fn waiter(&self) -> Stopped {
        Stopped(self.0.subscribe())
    }
}

impl Stopped {
    /// Whether somebody asked.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once somebody asked, or nobody is left who could.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|s| *s).await;
    }
}

/// Why the daemon was asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopCause {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// By [`StopRequest::stop`].
    Command,
}

/// Handlers of the signals that end a daemon. While they are installed, SIGHUP ends nothing.
#[derive(Debug)]
pub struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Installs the handlers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When they cannot be installed.
    pub fn install() -> std::io::Result<StopSignals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM, SIGINT or a stop request, and passes a signal on as a stop request.
    pub async fn wait(&mut self, stop: &StopRequest) -> StopCause {
        self.wait_reloading(stop, || ()).await
    }

    /// The same, and calls `reload` at each SIGHUP.
    pub async fn wait_reloading(&mut self, stop: &StopRequest, mut reload: impl FnMut()) -> StopCause {
        let mut asked = stop.waiter();
        let cause = loop {
            tokio::select! {
                _ = self.terminate.recv() => break StopCause::Terminate,
                _ = self.interrupt.recv() => break StopCause::Interrupt,
                () = asked.wait() => break StopCause::Command,
                _ = self.hangup.recv() => reload(),
            }
        };
        stop.stop();
        cause
    }
}

/// Ends the process at once on the next SIGTERM or SIGINT, for an operator who will not wait for a clean end.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn abort_on_second_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {},
        _ = interrupt.recv() => {},
    }
    std::process::exit(130);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_told_even_late() {
        let (stop, mut early) = stop_channel();
        assert!(!early.is_stopped());
        let waiting = tokio::spawn(async move { early.wait().await });
        stop.stop();
        waiting.await.unwrap();
        let mut late = stop.waiter();
        late.wait().await;
        assert!(late.is_stopped());
    }

    #[tokio::test]
    async fn a_command_ends_the_wait() {
        let (stop, _stopped) = stop_channel();
        stop.stop();
        assert_eq!(StopSignals::install().unwrap().wait(&stop).await, StopCause::Command);
    }
}
