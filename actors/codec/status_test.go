package codec

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/twin"
)

func TestStatus(t *testing.T) {
	tests := []struct {
		payload string
		want    twin.Status
		ok      bool
		refusal *Refusal
	}{
		{`{"online":true,"boot":3,"session":17}`, twin.Status{Online: true, HasBoot: true, Boot: 3, HasSession: true, Session: 17}, true, nil},
		{`{"reason":"lost","online":false}`, twin.Status{}, true, nil},
		{`{"online":true,"boot":"0","session":9223372036854775807}`, twin.Status{Online: true, HasBoot: true, HasSession: true, Session: math.MaxInt64}, true, nil},
		{`{"online":true,"boot":null,"session":null}`, twin.Status{Online: true}, true, nil},
		{``, twin.Status{}, false, nil},
		{`{}`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "online: missing; it is true or false"}},
		{`{"online":1}`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "online: expected true or false, got a number"}},
		{`{"online":true,"online":true}`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "online: appears twice"}},
		{`{"online":true,"boot":[]}`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "boot: expected an integer, got an array"}},
		{`{"online":true,"session":-1}`, twin.Status{}, false, &Refusal{Reason: twin.NumberRange, Detail: "session: -1 is negative"}},
		{`{"online":true,"boot":1.5}`, twin.Status{}, false, &Refusal{Reason: twin.NumberRange, Detail: "boot: 1.5 is not an integer"}},
		{`{"online":true`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "not JSON: byte 14: expected ',' or '}', got the end"}},
		{`{"online":tru}`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "not JSON: byte 10: expected true"}},
		{`offline`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "not JSON: byte 0: expected a value, got 'o'"}},
		{`true`, twin.Status{}, false, &Refusal{Reason: twin.NotDecodable, Detail: "a message is a JSON object, got a boolean"}},
		{strings.Repeat(" ", MaxMessage+1), twin.Status{}, false, &Refusal{Reason: twin.TooLarge, Detail: "the message has 65537 bytes, at most 65536 are taken"}},
	}
	d := NewDecoder()
	for _, tt := range tests {
		got, ok, r := d.Status([]byte(tt.payload))
		if got != tt.want || ok != tt.ok {
			t.Errorf("%.60s: got %+v, %v; want %+v, %v", tt.payload, got, ok, tt.want, tt.ok)
		}
		if diff := cmp.Diff(tt.refusal, r); diff != "" {
			t.Errorf("%.60s (-want +got):\n%s", tt.payload, diff)
		}
	}
}

func TestReported(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 9) + "[1]" + strings.Repeat("}", 9)
	tests := []struct {
		name, contentType, payload string
		want                       string
		refusal                    *Refusal
	}{
		{"sorted and compact", "", "{ \"b\" : [ 1.50 , -0, 1e2 , {} , [] , {\"z\":0,\"y\":0} ] ,\n \"a\" : null }", `{"a":null,"b":[1.5,0,100,{},[],{"y":0,"z":0}]}`, nil},
		{"escapes", "", `{"\u0061\/\u00e9":"\ud83d\ude00\u0001\"\\\b\t\n\r"}`, `{"a/é":"😀\u0001\"\\\u0008\t\n\r"}`, nil},
		{"integers", "", `{"a":18446744073709551615,"b":-9223372036854775809,"c":123456789012345678901,"d":1e21,"e":0.0000001}`, `{"a":18446744073709551615,"b":-9223372036854775809,"c":123456789012345680000,"d":1e+21,"e":1e-7}`, nil},
		{"ten levels", "application/json; charset=utf-8", deep, deep, nil},
		{"array at the top", "", `[1]`, "", &Refusal{Reason: twin.NotDecodable, Detail: "a message is a JSON object, got an array"}},
		{"eleven levels", "", `{"x":` + deep + `}`, "", &Refusal{Reason: twin.NotDecodable, Detail: "x.a.a.a.a.a.a.a.a.a: nested deeper than 10 levels"}},
		{"syntax", "", `{"x":}`, "", &Refusal{Reason: twin.NotDecodable, Detail: "not JSON: byte 5: expected a value, got '}'"}},
		{"twice", "", `{"x":{"y":1,"a":1,"y":2}}`, "", &Refusal{Reason: twin.NotDecodable, Detail: "x.y: appears twice"}},
		{"odd name", "", `{"x y":{"":1e999}}`, "", &Refusal{Reason: twin.NotFinite, Detail: `"x y".: 1e999 is not a finite number`}},
		{"empty", "", "", "", &Refusal{Reason: twin.NoContent, Detail: "the payload is empty"}},
		{"msgpack", "application/msgpack", "\x80", "", &Refusal{Reason: twin.ContentType, Detail: `content type "application/msgpack": reported properties are application/json`}},
		{"unknown", "text/html", "{}", "", &Refusal{Reason: twin.ContentType, Detail: `content type "text/html": reported properties are application/json`}},
		{"too large", "", strings.Repeat(" ", MaxMessage+1), "", &Refusal{Reason: twin.TooLarge, Detail: "the message has 65537 bytes, at most 65536 are taken"}},
	}
	d := NewDecoder()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, r := d.Reported(tt.contentType, []byte(tt.payload))
			if string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if diff := cmp.Diff(tt.refusal, r); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			if tt.refusal != nil {
				return
			}
			again, r := NewDecoder().Reported("", []byte(tt.want))
			if r != nil || string(again) != tt.want {
				t.Errorf("again: got %s, %v, want it unchanged", again, r)
			}
		})
	}
}

func TestValidDevice(t *testing.T) {
	for id, want := range map[string]bool{
		"pump-1": true, "AA:BB:CC:00:11:22": true, "a.b_c@d": true, strings.Repeat("x", 128): true,
		"": false, "a/b": false, "a b": false, "é": false, "#floor": false, "a+": false, strings.Repeat("x", 129): false,
	} {
		if got := ValidDevice([]byte(id)); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}
