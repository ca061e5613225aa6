//! What a request asks for: its route, page size, cursor and fields.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::portrait;
use crate::problem::Problem;

/// Largest page, and the size of a page when none is asked for.
const LARGEST_PAGE: u32 = 1000;
const USUAL_PAGE: u32 = 100;

const SERVER_FIELDS: &[&str] = &[
    "serverName",
    "enableMdmDisownFlag",
    "defaultProductFamilies",
    "status",
    "serverType",
    "deviceCount",
    "lastConnectedDateTime",
    "lastConnectedIp",
    "createdDateTime",
    "updatedDateTime",
    "devices",
];
const DEVICE_RELATIONSHIPS: &[&str] = &["assignedServer", "appleCareCoverage"];
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b',');

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The token endpoint.
    Token,
    /// The device listing.
    Devices,
    /// One device.
    Device(String),
    /// The id of a device's server.
    AssignedServerId(String),
    /// A device's server.
    AssignedServer(String),
    /// The servers.
    Servers,
    /// One server.
    Server(String),
    /// The devices of a server.
    Linkage(String),
    /// A resource that exists at Apple but that this account may not use.
    Forbidden,
    /// Nothing.
    Nowhere,
}

impl Route {
    /// Finds where a method and a path lead.
    pub(crate) fn of(method: &str, path: &str) -> Self {
        let parts: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (method, parts.as_slice()) {
            ("POST", ["auth", "oauth2", "token"] | ["auth", "oauth2", "v2", "token"]) => Self::Token,
            ("GET", ["v1", "orgDevices"]) => Self::Devices,
            ("GET", ["v1", "orgDevices", id]) => Self::Device((*id).to_owned()),
            ("GET", ["v1", "orgDevices", id, "relationships", "assignedServer"]) => {
                Self::AssignedServerId((*id).to_owned())
            }
            ("GET", ["v1", "orgDevices", id, "assignedServer"]) => Self::AssignedServer((*id).to_owned()),
            ("GET", ["v1", "mdmServers"]) => Self::Servers,
            ("GET", ["v1", "mdmServers", id]) => Self::Server((*id).to_owned()),
            ("GET", ["v1", "mdmServers", id, "relationships", "devices"]) => Self::Linkage((*id).to_owned()),
            (_, ["v1", resource, ..]) if RESOURCES.contains(resource) => Self::Forbidden,
            _ => Self::Nowhere,
        }
    }

    /// Returns the name that the journal and fault scripts know it by.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Devices => "devices",
            Self::Device(_) => "device",
            Self::AssignedServerId(_) => "assigned-server-id",
            Self::AssignedServer(_) => "assigned-server",
            Self::Servers => "servers",
            Self::Server(_) => "server",
            Self::Linkage(_) => "linkage",
            Self::Forbidden | Self::Nowhere => "other",
        }
    }
}

const RESOURCES: &[&str] = &[
    "orgDevices",
    "mdmServers",
    "orgDeviceActivities",
    "auditEvents",
    "mdmDevices",
    "users",
    "userGroups",
    "organizationalUnits",
    "apps",
    "packages",
    "configurations",
    "blueprints",
    "webhooks",
    "webhookDeliveries",
    "webhookPings",
];

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Page size asked for.
    pub(crate) limit: Option<u32>,
    /// Cursor as it was sent.
    pub(crate) cursor: Option<String>,
    /// Fields asked for.
    pub(crate) fields: Option<Vec<String>>,
}

impl Parameters {
    /// Reads the query of a request for `route`.
    pub(crate) fn read(route: &Route, query: &str) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        for (name, value) in pairs(query) {
            match (name.as_str(), route) {
                ("limit", Route::Devices | Route::Servers | Route::Linkage(_)) => {
                    parameters.limit = Some(page_size(&value)?);
                }
                ("cursor", Route::Devices | Route::Servers | Route::Linkage(_)) => parameters.cursor = Some(value),
                ("fields[orgDevices]", Route::Devices | Route::Device(_)) => {
                    let known = |field: &str| portrait::NAMES.contains(&field) || DEVICE_RELATIONSHIPS.contains(&field);
                    parameters.fields = Some(fields(&name, &value, known)?);
                }
                ("fields[mdmServers]", Route::Servers | Route::Server(_) | Route::AssignedServer(_)) => {
                    parameters.fields = Some(fields(&name, &value, |field| SERVER_FIELDS.contains(&field))?);
                }
                _ => return Err(Problem::illegal(&name)),
            }
        }
        Ok(parameters)
    }

    /// Returns the page size that an answer uses.
    pub(crate) fn page(&self) -> u32 {
        self.limit.unwrap_or(USUAL_PAGE)
    }

    /// Writes these parameters with another cursor as a query, `?` in front; empty when there are none.
    pub(crate) fn written(&self, resource: &str, cursor: Option<&str>) -> String {
        let mut parts = Vec::new();
        if let Some(fields) = &self.fields {
            parts.push(format!("fields%5B{resource}%5D={}", fields.join(",")));
        }
        if let Some(limit) = self.limit {
            parts.push(format!("limit={limit}"));
        }
        if let Some(cursor) = cursor {
            parts.push(format!("cursor={}", utf8_percent_encode(cursor, QUERY)));
        }
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

/// Splits a query or a form into decoded pairs.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn page_size(value: &str) -> Result<u32, Problem> {
    match value.parse::<u32>() {
        Ok(limit) if (1..=LARGEST_PAGE).contains(&limit) => Ok(limit),
        _ => {
            let detail = format!("'{value}' is not a valid limit: it must be between 1 and {LARGEST_PAGE}");
            Err(Problem::parameter("limit", detail))
        }
    }
}

fn fields(parameter: &str, value: &str, known: impl Fn(&str) -> bool) -> Result<Vec<String>, Problem> {
    let names: Vec<String> = value.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !known(name)) {
        Some(name) => Err(Problem::parameter(parameter, format!("'{name}' is not a valid field name"))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_outside_one_to_a_thousand_are_refused() {
        for (query, expected) in [("limit=1", Ok(1)), ("limit=1000", Ok(1000)), ("", Ok(100))] {
            assert_eq!(Parameters::read(&Route::Devices, query).map(|read| read.page()), expected);
        }
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=ten", "limit="] {
            let problem = Parameters::read(&Route::Devices, query).unwrap_err();
            assert_eq!((problem.code, problem.parameter.as_deref()), ("PARAMETER_ERROR.INVALID", Some("limit")));
        }
    }

    #[test]
    fn parameters_that_a_resource_does_not_know_are_refused() {
        for (route, query) in [
            (Route::Devices, "include=appleCareCoverage"),
            (Route::Devices, "filter[status]=ASSIGNED"),
            (Route::Device("X".to_owned()), "limit=5"),
            (Route::Linkage("X".to_owned()), "fields[orgDevices]=status"),
        ] {
            assert_eq!(Parameters::read(&route, query).unwrap_err().code, "PARAMETER_ERROR.ILLEGAL", "{query}");
        }
        let unknown = Parameters::read(&Route::Devices, "fields%5BorgDevices%5D=serialNumber,shoeSize").unwrap_err();
        assert_eq!(unknown.code, "PARAMETER_ERROR.INVALID");
    }

    #[test]
    fn a_query_written_is_read_as_it_was() {
        let parameters = Parameters {
            limit: Some(7),
            cursor: Some("a=b".to_owned()),
            fields: Some(vec!["serialNumber".to_owned(), "status".to_owned()]),
        };
        let written = parameters.written("orgDevices", parameters.cursor.as_deref());
        assert_eq!(written, "?fields%5BorgDevices%5D=serialNumber,status&limit=7&cursor=a%3Db");
        assert_eq!(Parameters::read(&Route::Devices, &written[1..]), Ok(parameters));
    }
}
