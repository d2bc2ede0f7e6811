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
        routes.add_service(HealthServer::new(HealthService::from_health_reporter(self.reporter.clone())))
    }

    /// Tells everybody that nothing serves any more, and ends their watches with that.
    pub async fn drain(mut self) {
        self.set(ServingStatus::NotServing).await;
        for service in SERVICES.into_iter().filter(|service| !service.is_empty()) {
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
    use tonic::Request;
    use tonic_health::pb::{HealthCheckRequest, health_server::Health as _};

    use super::*;

    #[tokio::test]
    async fn a_draining_server_does_not_serve() {
        let health = Health::new().await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let check = async || {
            let request = Request::new(HealthCheckRequest { service: String::new() });
            service.check(request).await.unwrap().into_inner().status
        };
        assert_eq!(check().await, 1, "SERVING");
        health.drain().await;
        assert_eq!(check().await, 2, "NOT_SERVING");
    }
}
