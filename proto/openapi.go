// Package proto holds what is generated from the protobuf files and is not Go.
package proto

import _ "embed" // for OpenAPI

// OpenAPI describes the JSON API, as generated from the google.api.http annotations: OpenAPI 3.0 in YAML.
// The HTTP door completes it before it serves it.
//
//go:embed openapi.yaml
var OpenAPI []byte
