package mqtt

import (
	"regexp"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/actors/host"
)

func TestTopicsParse(t *testing.T) {
	for _, c := range []struct {
		root, topic, device string
		kind                host.MessageKind
	}{
		{"devices", "devices/a/telemetry", "a", host.Telemetry},
		{"devices", "devices/AA:BB:CC/status", "AA:BB:CC", host.Status},
		{"devices", "devices/a/reported", "a", host.Reported},
		{"devices", "devices//telemetry", "", host.Telemetry},
		{"/site/one/devices/", "site/one/devices/a/telemetry", "a", host.Telemetry},
		{"devices", "devices/a/desired", "", 0},
		{"devices", "devices/a/telemetry/", "", 0},
		{"devices", "devices/a/b/telemetry", "", 0},
		{"devices", "devices/telemetry", "", 0},
		{"devices", "devices", "", 0},
		{"devices", "/devices/a/telemetry", "", 0},
		{"devices", "devicesX/a/telemetry", "", 0},
		{"devices", "", "", 0},
	} {
		device, kind, ok := newTopics(c.root).parse([]byte(c.topic))
		if string(device) != c.device || kind != c.kind || ok != (c.kind != 0) {
			t.Errorf("root %q topic %q: %q %d %v, want %q %d", c.root, c.topic, device, kind, ok, c.device, c.kind)
		}
	}
}

func TestTopicsParseAllocatesNothing(t *testing.T) {
	topics, topic := newTopics("devices"), []byte("devices/device-000001/telemetry")
	if n := testing.AllocsPerRun(100, func() {
		device, _, ok := topics.parse(topic)
		if !ok || checkDevice(device) != "" {
			t.Error("not parsed")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

var (
	legalDevice = regexp.MustCompile(`^[A-Za-z0-9._:@-]{1,128}$`)
	deviceTopic = regexp.MustCompile(`(?s)^devices/([^/]*)/(telemetry|status|reported)$`)
)

func FuzzTopic(f *testing.F) {
	for _, s := range []string{"devices/a/telemetry", "devices//status", "devices/a/b/reported", "devices/\x00/status", "devices/" + strings.Repeat("x", 129) + "/status"} {
		f.Add(s)
	}
	topics := newTopics("devices")
	f.Fuzz(func(t *testing.T, s string) {
		device, _, ok := topics.parse([]byte(s))
		want := deviceTopic.FindStringSubmatch(s)
		if ok != (want != nil) || ok && string(device) != want[1] {
			t.Fatalf("%q: %q %v, want %q", s, device, ok, want)
		}
		if ok && (checkDevice(device) == "") != legalDevice.Match(device) {
			t.Fatalf("device id %q: %q", device, checkDevice(device))
		}
	})
}

func TestTopicsWatches(t *testing.T) {
	topics := newTopics("site/devices")
	for filter, want := range map[string]bool{
		"#": true, "site/#": true, "+/+/+/+": true, "site/devices/a/telemetry": true, "site/devices/+/reported": true,
		"site/devices/#": true, "site/devices/a/#": true, "$share/g/site/devices/+/telemetry": true, "site/devices/+/+": true,
		"site/devices/+/status": false, "site/devices/+/commands/+": false, "site/devices/+": false, "site": false,
		"other/#": false, "site/devices/a/desired": false, "": false, "+/devices/a": false, "$share/g": false,
	} {
		if got := topics.watches(filter); got != want {
			t.Errorf("%q watches %v, want %v", filter, got, want)
		}
	}
}
