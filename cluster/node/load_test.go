package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "doppel.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func load(t *testing.T, args []string, file string, environ ...string) (Config, error) {
	t.Helper()
	var cfg Config
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cfg, Load(fs, file, environ)
}

// TestLoadPrecedence: flags win over environment, environment over file, file over defaults, each for
// itself.
func TestLoadPrecedence(t *testing.T) {
	file := writeFile(t, `
# some settings
group: file
topic-root: file
topic-prefix: file
data-dir: file
mqtt: [mqtt://a:1883, mqtt://b:1883]
kafka: c:9092
insecure: true
partitions: 16
`)
	got, err := load(t, []string{"--group", "flag", "--kafka", "f:9092,g:9092"}, file,
		"DOPPEL_GROUP=env", "DOPPEL_TOPIC_ROOT=env", "DOPPEL_KAFKA=e:9092", "DOPPEL_EMBEDDED_RETENTION_BYTES=1073741824",
		"DOPPEL_ADDR=of:1", "DOPPEL_TEST_KAFKA=x", "DOPPEL_SERVICES_DIR=x", "HOME=/")
	if err != nil {
		t.Fatal(err)
	}
	want, _ := load(t, nil, "")
	want.Group, want.MQTTRoot, want.TopicPrefix, want.DataDir = "flag", "env", "file", "file"
	want.MQTT, want.Kafka = []string{"mqtt://a:1883", "mqtt://b:1883"}, []string{"f:9092", "g:9092"}
	want.Insecure, want.Partitions, want.EmbeddedRetentionBytes = true, 16, 1<<30
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// TestDefaults: the defaults of the public contract; out of the box everything is embedded and listens
// on loopback.
func TestDefaults(t *testing.T) {
	var cfg Config
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	cfg.Flags(fs)
	for name, want := range map[string]string{
		"node-id": "", "data-dir": "./data", "mqtt": "[]", "kafka": "[]", "questdb": "", "group": "doppel", "topic-root": "devices", "topic-prefix": "doppel.",
		"grpc-addr": "127.0.0.1:9090", "http-addr": "127.0.0.1:8080", "mqtt-addr": "127.0.0.1:1883", "kafka-addr": "127.0.0.1:9092",
		"node-addr": "127.0.0.1:7946", "advertise": "", "tls-cert": "", "tls-key": "", "tls-ca": "", "auth-tokens": "", "insecure": "false",
		"unknown-devices": "accept", "embedded-fsync": "false", "embedded-retention-bytes": "4294967296", "addresses-file": "", "questdb-max-metrics": "200",
	} {
		switch f := fs.Lookup(name); {
		case f == nil:
			t.Errorf("%s is not a setting", name)
		case f.DefValue != want:
			t.Errorf("%s is %q by default, want %q", name, f.DefValue, want)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	if n := cfg.partitions(); n != 8 {
		t.Errorf("%d partitions embedded, want 8", n)
	}
	cfg.Kafka = []string{"k:9092"}
	if n := cfg.partitions(); n != 64 {
		t.Errorf("%d partitions on Kafka, want 64", n)
	}
}

// TestLoadRefuses: what is misspelt or unreadable is named with its place, all of it at once.
func TestLoadRefuses(t *testing.T) {
	tests := []struct {
		name, file string
		environ    []string
		want       []string
	}{
		{"environment", "", []string{"DOPPEL_MQTT_ADR=x"}, []string{"environment: DOPPEL_MQTT_ADR is not a setting; did you mean DOPPEL_MQTT_ADDR?"}},
		{"file", "group: a\nmqtt-adr: x\n", nil, []string{"doppel.yaml:2: mqtt-adr is not a setting; did you mean mqtt-addr?"}},
		{"underscores", "mqtt_addr: x\n", nil, []string{"doppel.yaml:1: mqtt_addr is not a setting; did you mean mqtt-addr?"}},
		{"flags only", "config: x\n", nil, []string{"doppel.yaml:1: config is not a setting; did you mean"}},
		{"value in the environment", "", []string{"DOPPEL_PARTITIONS=many"}, []string{"environment: DOPPEL_PARTITIONS: ", "many"}},
		{"value in the file", "\npartitions: many\n", nil, []string{"doppel.yaml:2: partitions: ", "many"}},
		{"all at once", "a: 1\nb: 2\n", []string{"DOPPEL_C=3"}, []string{"DOPPEL_C", ":1: a ", ":2: b "}},
		{"twice", "group: a\ngroup: b\n", nil, []string{"doppel.yaml:2: group stands on line 1 already"}},
		{"nested", "mqtt:\n  addr: x\n", nil, []string{"doppel.yaml:2: mqtt: want a value or a list; settings are flat"}},
		{"no mapping", "- a\n", nil, []string{"doppel.yaml:1: want a mapping of settings"}},
		{"no yaml", "a: [\n", nil, []string{"doppel.yaml: yaml: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := ""
			if tt.file != "" {
				file = writeFile(t, tt.file)
			}
			_, err := load(t, nil, file, tt.environ...)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if _, err := load(t, nil, filepath.Join(t.TempDir(), "absent.yaml")); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("absent file: %v", err)
	}
	if _, err := load(t, nil, writeFile(t, "# nothing\n")); err != nil {
		t.Errorf("empty file: %v", err)
	}
}

// locked listens everywhere, behind locks.
func locked(c *Config) {
	c.GRPCAddr, c.HTTPAddr, c.MQTTAddr = "0.0.0.0:9090", "0.0.0.0:8080", "0.0.0.0:1883"
	c.TLSCert, c.TLSKey, c.TLSCA, c.AuthTokens, c.MQTTUsers = "load_test.go", "load_test.go", "load_test.go", "load_test.go", "load_test.go"
}

// TestValidate: a setting that cannot be kept is refused by its name.
func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // empty: accepted
	}{
		{"partitions", func(c *Config) { c.Partitions = -1 }, "partitions: -1 is out of range, want 1 to 4096"},
		{"unknown devices", func(c *Config) { c.UnknownDevices = "maybe" }, `unknown-devices: "maybe" is neither accept nor dead-letter`},
		{"retention", func(c *Config) { c.EmbeddedRetentionBytes = 5 }, "embedded-retention-bytes: 5 is less than 1 MiB"},
		{"max metrics", func(c *Config) { c.QuestDBMaxMetrics = 0 }, "questdb-max-metrics: 0, want at least 1"},
		{"broker of the web", func(c *Config) { c.MQTT = []string{"http://u:secret@b:1883"} }, "mqtt: broker url http://u:xxxxx@b:1883: scheme is none of"},
		{"broker of kafka with a password", func(c *Config) { c.Kafka = []string{"k1:9092", "u:secret@k2:9092"} }, `kafka: "k2:9092" is not HOST:PORT; user and password are kafka-sasl-user`},
		{"broker of kafka without a port", func(c *Config) { c.Kafka = []string{"k1"} }, `kafka: "k1" is not HOST:PORT`},
		{"questdb without a scheme", func(c *Config) { c.QuestDB = "localhost:9000" }, "questdb: questdb url localhost:9000 is not http://HOST:PORT"},
		{"certificate alone", func(c *Config) { c.TLSCert = "load_test.go" }, "tls-cert, tls-key: one is given without the other"},
		{"no such file", func(c *Config) { c.AuthTokens = "nowhere" }, "auth-tokens: stat nowhere"},
		{"client certificates of nobody", func(c *Config) { c.TLSClientAuth = "require" }, "tls-client-auth: require needs tls-cert, tls-key and tls-ca"},
		{"client certificates, misspelt", func(c *Config) { c.TLSClientAuth = "maybe" }, `tls-client-auth: "maybe" is none of none, request, require`},
		{"issuer in plain text", func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "http://id.example.com", "doppel" }, "oidc-issuer: \"http://id.example.com\" is not https"},
		{"issuer without audience", func(c *Config) { c.OIDCIssuer = "https://id.example.com" }, "oidc-audience: is missing"},
		{"sasl without a password", func(c *Config) { c.KafkaSASLMechanism, c.KafkaSASLUser = "plain", "me" }, "kafka-sasl-mechanism: needs kafka-sasl-user and kafka-sasl-password-file"},
		{"sasl, misspelt", func(c *Config) { c.KafkaSASLMechanism = "gssapi" }, `kafka-sasl-mechanism: "gssapi" is none of plain`},
		{"password in plain text", func(c *Config) {
			c.MQTT, c.MQTTUser, c.MQTTPasswordFile = []string{"mqtt://b:1883"}, "me", "load_test.go"
		}, "mqtt: the password would go in plain text to b:1883; give mqtts://"},
		{"locked", locked, ""},
		{"locked, log", func(c *Config) { locked(c); c.KafkaAddr = "0.0.0.0:9092" }, ""},
		{"locked, but for tokens", func(c *Config) { locked(c); c.AuthTokens = "" }, "grpc-addr: 0.0.0.0:9090 is reachable from other machines, which needs TLS and authentication: give auth-tokens or oidc-issuer; or listen"},
		{"locked, but for authorities", func(c *Config) { locked(c); c.KafkaAddr, c.TLSCA = "0.0.0.0:9092", "" }, "give tls-ca; or listen"},
		{"locked, but for strangers", func(c *Config) { locked(c); c.MQTTAnonymous = true }, "mqtt-addr: 0.0.0.0:1883 is reachable"},
		{"no port", func(c *Config) { c.HTTPAddr = "127.0.0.1" }, `http-addr: "127.0.0.1" is not HOST:PORT`},
		{"everywhere", func(c *Config) { c.GRPCAddr = "0.0.0.0:9090" }, "grpc-addr: 0.0.0.0:9090 is reachable from other machines"},
		{"everywhere, short", func(c *Config) { c.HTTPAddr = ":8080" }, "http-addr: :8080 is reachable from other machines"},
		{"everywhere, version 6", func(c *Config) { c.MQTTAddr = "[::]:1883" }, "mqtt-addr: [::]:1883 is reachable"},
		{"a name", func(c *Config) { c.KafkaAddr = "box:9092" }, "kafka-addr: box:9092 is reachable"},
		{"node to node", func(c *Config) { c.Kafka, c.NodeAddr = []string{"k:9092"}, "10.0.0.1:7946" }, "node-addr: 10.0.0.1:7946 is reachable"},
		{"insecure", func(c *Config) { c.GRPCAddr, c.Insecure = "0.0.0.0:9090", true }, ""},
		{"not listening", func(c *Config) { c.MQTT, c.MQTTAddr = []string{"mqtt://b:1883"}, "0.0.0.0:1883" }, ""},
		{"loopback", func(c *Config) { c.GRPCAddr, c.HTTPAddr, c.MQTTAddr = "localhost:0", "[::1]:0", "127.1.2.3:0" }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := load(t, nil, "")
			tt.change(&cfg)
			err := cfg.Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestNodeID: the id is made once and kept.
func TestNodeID(t *testing.T) {
	cfg := Config{DataDir: t.TempDir()}
	first, err := cfg.nodeID()
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if rest, found := strings.CutPrefix(first, hostname+"-"); !found || len(rest) != 6 || strings.Trim(rest, "0123456789abcdef") != "" {
		t.Errorf("id %q, want %s- and 6 hex digits", first, hostname)
	}
	if again, err := cfg.nodeID(); err != nil || again != first {
		t.Errorf("second time %q, %v; want %q", again, err, first)
	}
	cfg.NodeID = "mine"
	if got, err := cfg.nodeID(); err != nil || got != "mine" {
		t.Errorf("configured: %q, %v", got, err)
	}
}

// TestMaskURL: passwords do not get into what `config print` shows.
func TestMaskURL(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://user:secret@host:1883":     "mqtt://user:***@host:1883",
		"http://user:s@cret:x@host:9000/p": "http://user:***@host:9000/p",
		"http://:secret@host":              "http://:***@host",
		"user:secret@host:1883":            "user:***@host:1883",
		"host:1883":                        "host:1883",
		"mqtt://user@host":                 "mqtt://user@host",
		"127.0.0.1:9092":                   "127.0.0.1:9092",
		"":                                 "",
	} {
		if got := maskURL(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
