//! `grpc.health.v1`, for load balancers and for people: the server as a whole, and each client service.

use socp::v1::{
    account_service_server::SERVICE_NAME as ACCOUNT, directory_service_server::SERVICE_NAME as DIRECTORY,
    message_service_server::SERVICE_NAME as MESSAGE,
};
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::limits::NAME_REQUEST_BYTES_MAX;

/// What is told about: the empty name means the server as a whole.
const SERVICES: [&str; 4] = ["", ACCOUNT, DIRECTORY, MESSAGE];

/// The health of this server, as others are told it. No token is asked for.
#[derive(Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Everything serves.
    pub async fn new() -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.set(ServingStatus::Serving).await;
        health
    }

    /// Adds the service to others.
    pub fn add_to(&self, routes: Routes) -> Routes {
        let service = HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()));
        routes.add_service(service.max_decoding_message_size(NAME_REQUEST_BYTES_MAX))
    }

    /// Tells everybody that nothing serves any more.
    pub async fn drain(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends all watches, after what they were told last: a watch of health would otherwise hold up the stop.
    pub async fn end(mut self) {
        for service in SERVICES {
            self.reporter.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;
    use tonic::Request;
    use tonic_health::pb::{HealthCheckRequest, health_server::Health as _};

    use super::*;

    #[tokio::test]
    async fn a_draining_server_says_so_and_then_ends_watches() {
        let health = Health::new().await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let request = || Request::new(HealthCheckRequest { service: String::new() });
        let check = async || service.check(request()).await.unwrap().into_inner().status;
        let mut watch = service.watch(request()).await.unwrap().into_inner();
        assert_eq!(check().await, 1, "SERVING");
        assert_eq!(watch.next().await.unwrap().unwrap().status, 1);
        health.drain().await;
        assert_eq!(check().await, 2, "NOT_SERVING");
        health.end().await;
        assert_eq!(watch.next().await.unwrap().unwrap().status, 2);
        assert!(watch.next().await.is_none());
    }
}
