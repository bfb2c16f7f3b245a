package mqtt

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/doppel-iot/doppel/actors/host"
)

// maxDeviceID is the longest device id of the contract, in bytes.
const maxDeviceID = 128

// topics knows the topics below one root. It is immutable.
type topics struct {
	root   string // "devices"
	prefix string // "devices/"
}

func newTopics(root string) topics {
	root = strings.Trim(root, "/")
	return topics{root: root, prefix: root + "/"}
}

// parse splits {root}/{device}/{telemetry|status|reported}; device points into topic. ok is false
// for any other topic. The device id is not checked: see checkDevice.
func (t topics) parse(topic []byte) (device []byte, kind host.MessageKind, ok bool) {
	if len(topic) < len(t.prefix) || string(topic[:len(t.prefix)]) != t.prefix {
		return nil, 0, false
	}
	rest := topic[len(t.prefix):]
	i := bytes.IndexByte(rest, '/')
	if i < 0 {
		return nil, 0, false
	}
	if kind = kindOf(rest[i+1:]); kind == 0 {
		return nil, 0, false
	}
	return rest[:i:i], kind, true
}

func kindOf(level []byte) host.MessageKind {
	switch string(level) {
	case "telemetry":
		return host.Telemetry
	case "status":
		return host.Status
	case "reported":
		return host.Reported
	}
	return 0
}

// filters are the topic filters of everything devices send, telemetry first.
func (t topics) filters() []string {
	return []string{t.prefix + "+/telemetry", t.prefix + "+/status", t.prefix + "+/reported"}
}

func (t topics) statusFilter() string { return t.prefix + "+/status" }

func (t topics) rejected(device string) string { return t.prefix + device + "/rejected" }

func (t topics) desired(device string) string { return t.prefix + device + "/desired" }

// checkDevice says why b is no device id, or "" if it is one.
func checkDevice(b []byte) string {
	if len(b) == 0 {
		return "device id is empty"
	}
	if len(b) > maxDeviceID {
		return fmt.Sprintf("device id has %d bytes, at most %d are allowed", len(b), maxDeviceID)
	}
	for i, c := range b {
		if !deviceByte[c] {
			return fmt.Sprintf("device id has byte 0x%02X at %d, allowed are letters, digits and . _ : @ -", c, i)
		}
	}
	return ""
}

// deviceByte marks [A-Za-z0-9._:@-].
var deviceByte = func() (t [256]bool) {
	const legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-"
	for i := range len(legal) {
		t[legal[i]] = true
	}
	return t
}()
