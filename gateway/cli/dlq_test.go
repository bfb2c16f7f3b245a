package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// lettersOfPumps are six letters, the first of them redriven.
func lettersOfPumps(fleet *apitest.Fleet, l *apitest.Letters) {
	fleet.Put(pump()) // firmware 1.2.3
	fleet.Put(&doppelv1.Twin{Id: "pump-3", Reported: &structpb.Struct{Fields: map[string]*structpb.Value{"firmware": structpb.NewNumberValue(7)}}})
	l.Add(
		&doppelv1.DeadLetter{
			Device: "pump-1", Reason: "quarantined", Detail: "the twin's code panicked and it takes no input until reset (1 samples)", Redriven: true, Node: "node-1",
			Payload: []byte(`{"boot":1,"seq":7,"metrics":{"a":1}}`), SourceTopic: "devices/pump-1/telemetry", ContentType: "application/json", Attempts: 1,
		},
		&doppelv1.DeadLetter{Device: "pump-1", Reason: "not_decodable", Detail: "offset 1: what an escape \x1b[31m says", Payload: []byte("{\x1b[31m\n"), SourceTopic: "devices/pump-1/telemetry"},
		&doppelv1.DeadLetter{
			Device: "pump-2", Reason: "not_decodable", Detail: strings.Repeat("long ", 40), Payload: []byte{0x82, 0xa3, 's', 'e', 'q', 1, 0xff, 0xfe, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
			SourceTopic: "devices/pump-2/telemetry", ContentType: "application/msgpack", Node: "node-2",
		},
		&doppelv1.DeadLetter{Device: "pump-3", Reason: "not_decodable", SourceTopic: "devices/pump-3/telemetry", Payload: []byte("plain text\nof two lines")},
		&doppelv1.DeadLetter{Reason: "missing_key", SourceTopic: "doppel.ingest"},
		&doppelv1.DeadLetter{Device: "pump-1", Reason: "too_large", Payload: bytes.Repeat([]byte("0123456789abcdef"), 512), TruncatedFrom: 1 << 20, SourceTopic: "devices/pump-1/telemetry"},
	)
}

// TestDeadLetterOutput: what each command prints in each format, byte for byte.
func TestDeadLetterOutput(t *testing.T) {
	fleet, letters, addr := serveLetters(t)
	lettersOfPumps(fleet, letters)
	for _, tt := range []struct {
		name    string
		args    []string
		formats string
		code    int
	}{
		{"dlq-list", []string{"dlq", "list"}, "table wide json yaml", 0},
		{"dlq-none", []string{"dlq", "list", "--filter", `device == "nobody"`}, "table json", 0},
		{"dlq-show-json", []string{"dlq", "show", "0-0"}, "table json yaml", 0},
		{"dlq-show-escape", []string{"dlq", "show", "0-1"}, "table", 0},
		{"dlq-show-hex", []string{"dlq", "show", "0-2"}, "table", 0},
		{"dlq-show-text", []string{"dlq", "show", "0-3"}, "table", 0},
		{"dlq-show-empty", []string{"dlq", "show", "0-4"}, "table", 0},
		{"dlq-show-cut", []string{"dlq", "show", "0-5"}, "table", 0},
		{"dlq-top", []string{"dlq", "top"}, "table json yaml", 0},
		{"dlq-top-one", []string{"dlq", "top", "--limit", "1", "--filter", `device == "pump-3"`}, "table", 0},
		{"dlq-redrive-dry", []string{"dlq", "redrive", "--filter", "true", "--dry-run"}, "table json", 1},
	} {
		for format := range strings.FieldsSeq(tt.formats) {
			t.Run(tt.name+"."+format, func(t *testing.T) {
				got := doppel(t.Context(), nil, append(tt.args, "--addr", addr, "-o", format)...)
				if got.code != tt.code || got.stderr != "" {
					t.Fatalf("exit code %d, stderr %q, %v", got.code, got.stderr, got.err)
				}
				golden(t, tt.name+"."+format, got.stdout)
			})
		}
	}
}

// TestShowRaw: the bytes as they came, to a file or alone on standard output.
func TestShowRaw(t *testing.T) {
	fleet, letters, addr := serveLetters(t)
	lettersOfPumps(fleet, letters)
	want := "{\x1b[31m\n"
	file := filepath.Join(t.TempDir(), "payload")
	got := doppel(t.Context(), nil, "dlq", "show", "0-1", "--raw", file, "--addr", addr)
	b, err := os.ReadFile(file)
	if err != nil || string(b) != want || !strings.Contains(got.stdout, "not_decodable") {
		t.Errorf("file %q, %v, output %q; want %q and the letter", b, err, got.stdout, want)
	}
	if got := doppel(t.Context(), nil, "dlq", "show", "0-1", "--raw", "-", "--addr", addr); got.stdout != want {
		t.Errorf("standard output %q, want %q", got.stdout, want)
	}
}

// TestRedriveCommand: sent once, corrected ones as they were corrected.
func TestRedriveCommand(t *testing.T) {
	fleet, letters, addr := serveLetters(t)
	lettersOfPumps(fleet, letters)
	const good = `{"boot":1,"seq":8,"metrics":{"a":1}}`
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"0-0"}, 0, "0 redriven, 0 refused again, 1 already done\n"},
		{[]string{"0-1"}, 1, "0 redriven, 1 refused again, 0 already done\n"},
		{[]string{"0-1", "--payload", file, "--dry-run"}, 0, "1 would be redriven, 0 refused again, 0 already done\n"},
		{[]string{"0-1", "--payload", file}, 0, "1 redriven, 0 refused again, 0 already done\n"},
		{[]string{"0-1", "--payload", file}, 0, "0 redriven, 0 refused again, 1 already done\n"},
		{[]string{"--filter", `device == "pump-1"`}, 0, "0 redriven, 0 refused again, 2 already done, 1 that cannot be\n"},
	} {
		got := doppel(t.Context(), nil, append([]string{"dlq", "redrive", "--addr", addr}, tt.args...)...)
		if got.code != tt.code || !strings.HasPrefix(got.stdout, tt.says) {
			t.Errorf("%v: exit code %d, it says %q, %v; want %d, %q", tt.args, got.code, got.stdout, got.err, tt.code, tt.says)
		}
	}
	sent := letters.Sent()
	if len(sent) != 1 || sent[0].Of != "0-1" || string(sent[0].Message.Payload) != good {
		t.Errorf("sent %+v, want 0-1 once, corrected", sent)
	}
}

func TestDeadLetterExitCodes(t *testing.T) {
	fleet, letters, addr := serveLetters(t)
	lettersOfPumps(fleet, letters)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"dlq"}, 2, "a command is missing"},
		{[]string{"dlq", "show"}, 2, "want [ID]"},
		{[]string{"dlq", "show", "0-99"}, 3, "no dead letter 0-99"},
		{[]string{"dlq", "show", "1-0"}, 3, "no dead letter 1-0"},
		{[]string{"dlq", "show", "seventeen"}, 2, "want PARTITION-OFFSET"},
		{[]string{"dlq", "show", "0-1", "--raw", filepath.Join(empty, "x")}, 1, "--raw: "},
		{[]string{"dlq", "list", "--limit", "-1"}, 2, "--limit: -1 is negative"},
		{[]string{"dlq", "list", "--filter", "nonsense"}, 2, "filter: 1:1"},
		{[]string{"dlq", "top", "--limit", "-1"}, 2, "--limit: -1 is negative"},
		{[]string{"dlq", "redrive"}, 2, "name letters, or give --filter"},
		{[]string{"dlq", "redrive", "0-1", "--filter", "true"}, 2, "either ids or a filter"},
		{[]string{"dlq", "redrive", "0-1", "0-2", "--payload", empty}, 2, "name it as the only id"},
		{[]string{"dlq", "redrive", "0-1", "--payload", empty}, 2, "is empty"},
		{[]string{"dlq", "redrive", "0-1", "--payload", filepath.Join(empty, "x")}, 1, "--payload: "},
		{[]string{"dlq", "redrive", "0-99"}, 3, "no dead letter 0-99"},
		{[]string{"dlq", "redrive", "x"}, 2, `"x" is not the id`},
		{[]string{"dlq", "redrive", "0-4"}, 1, "it is not known which device it is of"},
		{[]string{"dlq", "redrive", "0-5"}, 1, "of its 1048576 bytes were kept"},
		{[]string{"dlq", "list", "--addr", "127.0.0.1:1"}, 4, "127.0.0.1:1"},
		{[]string{"twin", "reset", "nobody"}, 3, "nobody"},
		{[]string{"twin", "reset"}, 2, "want [ID]"},
		{[]string{"twin", "reset", "pump-1"}, 0, ""},
	} {
		args := tt.args
		if !strings.Contains(strings.Join(args, " "), "--addr") && len(args) > 1 {
			args = append(args, "--addr", addr)
		}
		got := doppel(t.Context(), nil, args...)
		says := ""
		if got.err != nil {
			says = message(got.err)
		}
		if got.code != tt.code || !strings.Contains(says, tt.says) {
			t.Errorf("%v: exit code %d, it says %q; want %d, %q", tt.args, got.code, says, tt.code, tt.says)
		}
	}
}
