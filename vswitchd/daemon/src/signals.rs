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

/// Waits for SIGTERM, SIGINT or a stop request, and passes a signal on as a stop request. SIGHUP and SIGPIPE are ignored
/// from the first call on. A second SIGTERM or SIGINT is not handled here: see [`abort_on_second_signal`].
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn wait_for_stop(stop: &StopRequest) -> std::io::Result<StopCause> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _hangup = signal(SignalKind::hangup())?;
    let mut asked = stop.waiter();
    let cause = tokio::select! {
        _ = terminate.recv() => StopCause::Terminate,
        _ = interrupt.recv() => StopCause::Interrupt,
        () = asked.wait() => StopCause::Command,
    };
    stop.stop();
    Ok(cause)
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
        assert_eq!(wait_for_stop(&stop).await.unwrap(), StopCause::Command);
    }
}
