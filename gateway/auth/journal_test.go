package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestEntryKeepsSecrets: what people put into a twin or a command may be secret, and is not recorded.
func TestEntryKeepsSecrets(t *testing.T) {
	secret, err := structpb.NewStruct(map[string]any{"wifi": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := NewContext(t.Context(), &Identity{Name: "jana", Role: Operator, By: "token"})
	for _, req := range []any{
		&doppelv1.UpdateTwinRequest{
			Twin:       &doppelv1.Twin{Id: "pump-1", Desired: secret, Tags: map[string]string{"site": "brno"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"desired"}},
		},
		&doppelv1.InvokeCommandRequest{Id: "pump-1", Name: "join", Body: structpb.NewStructValue(secret)},
		&doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-1"}, ReplacementPayload: []byte("hunter2")},
	} {
		e := NewEntry(ctx, update, "192.0.2.1:5", req, codes.OK, nil)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("hunter2")) || bytes.Contains(b, []byte("aHVudGVyMg")) {
			t.Errorf("the record tells the secret: %s", b)
		}
		if _, redrive := req.(*doppelv1.RedriveDeadLettersRequest); !redrive && e.Resource != "pump-1" {
			t.Errorf("got resource %q", e.Resource)
		}
		if e.Who != "jana" || e.Role != "operator" || e.Method != "doppel.v1.TwinService/UpdateTwin" || e.Code != "OK" {
			t.Errorf("got %+v", e)
		}
	}
}

// TestJournalLosesNothingSilently: what the log does not take is told whole in the log of the process.
func TestJournalLosesNothingSilently(t *testing.T) {
	var mu sync.Mutex
	var kept []string
	keep := func(_ context.Context, key, entry []byte, done func(error)) {
		mu.Lock()
		defer mu.Unlock()
		if string(key) == "lost" {
			go done(errors.New("disk full"))
			return
		}
		kept = append(kept, string(entry))
		go done(nil)
	}
	log := &lockedBuffer{}
	j := NewJournal("n1", keep, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	j.Record(ctx, Entry{Who: "jana", Resource: "lost", Method: "m1"})
	cancel() // what waits is kept all the same
	for _, r := range []string{"a", "b"} {
		j.Record(ctx, Entry{Who: "jana", Resource: r, Method: "m2"})
	}
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if len(kept) != 2 || !strings.Contains(kept[0], `"node":"n1"`) {
		t.Errorf("kept %v", kept)
	}
	mu.Unlock()
	for end := time.Now().Add(10 * time.Second); ; {
		got := log.String()
		if strings.Contains(got, "record of a write not kept") && strings.Contains(got, "disk full") && strings.Contains(got, "method=m1") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %s", got)
		}
	}
	if n := strings.Count(log.String(), "msg=write"); n != 3 {
		t.Errorf("%d writes in the log, want 3", n)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
