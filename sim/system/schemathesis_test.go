package system_test

import (
	"os/exec"
	"testing"
)

// TestSchemathesis: requests made from the description of the JSON API, right ones and wrong ones, are never
// answered with a fault of the server's own, and answers are as described.
func TestSchemathesis(t *testing.T) {
	p := start(t, "--data-dir", t.TempDir())
	for _, id := range []string{"pump-1", "pump-2"} {
		p.pub(id+"/telemetry", `{"boot":1,"seq":1,"metrics":{"temperature":21.5}}`)
		p.await(id, "there", func(twin) bool { return true })
	}
	cmd := exec.CommandContext(t.Context(), "schemathesis", "run", "http://"+p.HTTP+"/openapi.json",
		"--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
		"--exclude-path-regex", ":watch$|/commands/", // endless, or waiting for devices that there are none of
		"--max-examples", "40", "--request-timeout", "30", "--no-color")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("schemathesis: %v\n%s", err, out)
	}
}
