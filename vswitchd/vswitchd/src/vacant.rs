//! The place of a device that has left, until another takes it.

use std::sync::Arc;

use offload::{
    Completions, FlowOp, InstalledFlow, NoObjects, OffloadCapabilities, OffloadError, OffloadProvider,
    SharedObjects, StatsBatch, StatsCursor,
};

/// A provider without ports and tables: nothing is ever placed on it.
pub struct Vacant {
    capabilities: Arc<OffloadCapabilities>,
    objects: NoObjects,
}

impl Vacant {
    /// One.
    pub fn new() -> Self {
        let capabilities = OffloadCapabilities {
            device: "none".to_owned(),
            tables: Vec::new(),
            entry: Vec::new(),
            ports: Vec::new(),
            zero_fields: Vec::new(),
            atomic_replace: true,
            resume_point: false,
            objects: Vec::new(),
            queue_depth: 1,
        };
        Vacant { capabilities: Arc::new(capabilities), objects: NoObjects }
    }
}

impl OffloadProvider for Vacant {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }
    fn submit(&mut self, _: &[FlowOp]) -> usize {
        0
    }
    fn poll(&mut self, _: &mut Completions, _: usize) -> usize {
        0
    }
    fn outstanding(&self) -> usize {
        0
    }
    fn objects(&mut self) -> &mut dyn SharedObjects {
        &mut self.objects
    }
    fn poll_stats(&mut self, _: &mut StatsCursor, _: usize) -> Result<StatsBatch, OffloadError> {
        Err(OffloadError::DeviceDown("it has left".to_owned()))
    }
    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        Ok(Vec::new())
    }
    fn flush(&mut self) -> Result<(), OffloadError> {
        Ok(())
    }
    fn health(&self) -> Result<(), OffloadError> {
        Ok(())
    }
    fn generation(&self) -> u64 {
        0
    }
}
