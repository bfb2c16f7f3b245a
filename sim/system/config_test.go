package system_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// settings writes a configuration file.
func settings(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "doppel.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestConfig: what is in force can be seen, without its secrets, and what is wrong is named.
func TestConfig(t *testing.T) {
	file := settings(t, "mqtt: [mqtt://user:secret@broker:1883]\ngroup: file\ntopic-root: file\ndata-dir: file\n")
	env := []string{"DOPPEL_GROUP=env", "DOPPEL_TOPIC_ROOT=env"}
	r := run(t, env, binary, "config", "print", "--config", file, "--group", "flag")
	if r.code != 0 {
		t.Fatalf("config print: exit code %d: %s", r.code, r.stderr)
	}
	for _, want := range []string{"group: flag\n", "topic-root: env\n", "data-dir: file\n", "topic-prefix: doppel.\n", "partitions: 8\n", "mqtt://user:***@broker:1883"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("config print does not say %q:\n%s", want, r.stdout)
		}
	}
	if strings.Contains(r.stdout, "secret") {
		t.Errorf("config print shows a secret:\n%s", r.stdout)
	}
	// What it prints is a configuration file again.
	if again := run(t, nil, binary, "config", "print", "--config", settings(t, r.stdout)); again.code != 0 || again.stdout != r.stdout {
		t.Errorf("config print of its own output: exit code %d, %s\n%s", again.code, again.stderr, again.stdout)
	}
	if r := run(t, []string{"DOPPEL_CONFIG=" + file}, binary, "config", "check"); r.code != 0 || r.stdout != "ok\n" {
		t.Errorf("config check: exit code %d, %q %s", r.code, r.stdout, r.stderr)
	}
}

// TestMisspeltSettings: one letter less is not a setting that is silently left alone.
func TestMisspeltSettings(t *testing.T) {
	file := settings(t, "group: a\nmqtt-adr: x\n")
	for _, command := range [][]string{{"run"}, {"config", "check"}, {"config", "print"}} {
		for _, tt := range []struct {
			env, args []string
			says      string
		}{
			{nil, []string{"--mqtt-adr", "x"}, "--mqtt-adr; did you mean --mqtt-addr?"},
			{[]string{"DOPPEL_MQTT_ADR=x"}, nil, "DOPPEL_MQTT_ADR is not a setting; did you mean DOPPEL_MQTT_ADDR?"},
			{nil, []string{"--config", file}, "doppel.yaml:2: mqtt-adr is not a setting; did you mean mqtt-addr?"},
		} {
			r := run(t, tt.env, binary, append(append([]string{}, command...), tt.args...)...)
			if r.code != 2 || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("%v %v %v: exit code %d, it says %q; want 2, %q", tt.env, command, tt.args, r.code, r.stderr, tt.says)
			}
		}
	}
}

// TestExposure: nobody opens a node to the network by accident.
func TestExposure(t *testing.T) {
	for _, flag := range []string{"--grpc-addr", "--http-addr", "--mqtt-addr", "--kafka-addr"} {
		p := launch(t, "--data-dir", t.TempDir(), flag, "0.0.0.0:0")
		if code := p.exit(nodetest.Patience); code != 2 {
			t.Errorf("%s 0.0.0.0:0: exit code %d, want 2", flag, code)
		}
		if want := flag[2:] + ": 0.0.0.0:0 is reachable from other machines"; !strings.Contains(p.log(), want) {
			t.Errorf("it says %q, want %q", p.log(), want)
		}
	}
	// From here on the test itself is exposed, for a moment and with an empty node.
	p := start(t, "--data-dir", t.TempDir(), "--http-addr", "0.0.0.0:0", "--insecure")
	if _, port, _ := strings.Cut(p.HTTP, "]:"); port == "" {
		t.Errorf("HTTP listens on %s, want every address", p.HTTP)
	}
}

// TestExitCodes of the process: scripts go by them.
func TestExitCodes(t *testing.T) {
	p := start(t, "--data-dir", t.TempDir())
	for _, tt := range []struct {
		code int
		args []string
	}{
		{0, []string{"version"}},
		{0, []string{"twin", "list", "--addr", p.GRPC}},
		{1, []string{"detect", "--data", filepath.Join(t.TempDir(), "absent"), "--out", t.TempDir()}},
		{2, []string{"twin", "fetch"}},
		{2, []string{"config", "fetch"}},
		{3, []string{"twin", "get", "nobody", "--addr", p.GRPC}},
		{4, []string{"twin", "get", "nobody", "--addr", "127.0.0.1:1"}},
		{2, []string{"sim", "--devices", "-1"}},
		{4, []string{"sim", "--broker", "mqtt://127.0.0.1:1", "--duration", "1s"}},
	} {
		r := run(t, nil, binary, tt.args...)
		if r.code != tt.code {
			t.Errorf("%v: exit code %d, want %d: %s", tt.args, r.code, tt.code, r.stderr)
		}
		if tt.code != 0 && !strings.HasPrefix(r.stderr, "doppel: ") && tt.args[0] != "sim" {
			t.Errorf("%v: it says %q", tt.args, r.stderr)
		}
	}
	if r := run(t, []string{"DOPPEL_ADDR=" + p.GRPC}, binary, "twin", "get", "nobody"); r.code != 3 {
		t.Errorf("DOPPEL_ADDR is not asked: exit code %d, %s", r.code, r.stderr)
	}
	if r := run(t, nil, binary, "version"); !strings.HasPrefix(r.stdout, "doppel ") || !strings.Contains(r.stdout, " go1.") {
		t.Errorf("version: %q", r.stdout)
	}
}
