package remote

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// unknown is a message of a type that is linked into no node.
func unknown(t *testing.T) proto.Message {
	t.Helper()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("future.proto"), Package: new("future"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Novelty")}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(file.Messages().Get(0))
}

// reason is a refusal without what is only for people.
type reason struct {
	id  uint64
	why doppelv1.RefusalReason
}

func reasons(refusals []*doppelv1.Refusal) (s []reason) {
	for _, r := range refusals {
		s = append(s, reason{r.GetId(), r.GetReason()})
	}
	return s
}

func checkReasons(t *testing.T, want []reason, got []*doppelv1.Refusal) {
	t.Helper()
	if diff := cmp.Diff(want, reasons(got), cmp.AllowUnexported(reason{})); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
}

// TestRefusedAlone: of each ten messages some cannot be delivered; the rest are, in order.
func TestRefusedAlone(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	b.Handle("broken", func(string, proto.Message) { panic("on purpose") })
	a.connected(t, b.Address())

	var want []uint64
	for i := range 100 {
		n := uint64(i + 1)
		switch n % 10 {
		case 3:
			mustTell(t, a, b.Address(), "inbox", unknown(t))
		case 5:
			mustTell(t, a, b.Address(), "nobody", beat(n))
		case 6:
			mustTell(t, a, b.Address(), "no/body", beat(n))
		case 7:
			mustTell(t, a, b.Address(), "broken", beat(n))
		default:
			mustTell(t, a, b.Address(), "inbox", beat(n))
			want = append(want, n)
		}
	}
	eventually(t, "the good ones arrived", func() bool { return in.len() == len(want) })
	if diff := cmp.Diff(want, in.seqs()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	eventually(t, "all refusals came back", func() bool { return len(a.refusals()) == 40 })
	wantReasons := []reason{
		{3, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TYPE},
		{5, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TARGET},
		{6, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TARGET},
		{7, doppelv1.RefusalReason_REFUSAL_REASON_FAILED},
	}
	checkReasons(t, wantReasons, a.refusals()[:4])
	for i, want := range []string{"future.Novelty", "nobody", "no/body", "panic: on purpose"} {
		if got := a.refusals()[i].GetDetail(); got != want {
			t.Errorf("detail %q, want %q", got, want)
		}
	}
	if got := a.Stats().Refused.Load(); got != 40 {
		t.Errorf("counted %d refused, want 40", got)
	}
	if got := b.Stats().Refusals.Load(); got != 40 {
		t.Errorf("counted %d refusals, want 40", got)
	}
	if got := a.Stats().Connects.Load(); got != 1 {
		t.Errorf("%d streams, want 1", got)
	}
}

// TestEncoded: a handler that decodes gets the bytes of its type; what it cannot read, or panics at, is refused
// alone, and so are other types.
func TestEncoded(t *testing.T) {
	a, b := startNode(t), startNode(t)
	const kind = "doppel.v1.Heartbeat"
	var got []string // of one stream: its reader's until the last is there
	last := make(chan struct{})
	b.HandleEncoded("raw", kind, func(from string, m []byte) error {
		got = append(got, from+" "+string(m))
		switch string(m) {
		case "unreadable":
			return errors.New("no sense in it")
		case "fatal":
			panic("on purpose")
		case "last":
			close(last)
		}
		return nil
	})
	a.connected(t, b.Address())
	mustTell(t, a, b.Address(), "raw", &doppelv1.DeliverRequest{Id: 1})
	for _, m := range []string{"", "unreadable", "fatal", "last"} {
		if err := a.TellEncoded(b.Address(), "raw", kind, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	<-last
	want := []string{a.Address() + " ", a.Address() + " unreadable", a.Address() + " fatal", a.Address() + " last"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	eventually(t, "all refusals came back", func() bool { return len(a.refusals()) == 3 })
	wantReasons := []reason{
		{1, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TYPE},
		{3, doppelv1.RefusalReason_REFUSAL_REASON_NOT_DECODABLE},
		{4, doppelv1.RefusalReason_REFUSAL_REASON_FAILED},
	}
	checkReasons(t, wantReasons, a.refusals())
	if got, want := a.refusals()[1].GetDetail(), kind+": no sense in it"; got != want {
		t.Errorf("detail %q, want %q", got, want)
	}
}

// exchange opens a stream to n with the generated client.
func exchange(t *testing.T, n *node) grpc.BidiStreamingClient[doppelv1.ExchangeRequest, doppelv1.ExchangeResponse] {
	t.Helper()
	conn, err := grpc.NewClient(n.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := doppelv1.NewNodeServiceClient(conn).Exchange(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed is m on its way to the inbox.
func sealed(t *testing.T, id uint64, m proto.Message) *doppelv1.Envelope {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &doppelv1.Envelope{Id: id, Target: "inbox", Type: string(m.ProtoReflect().Descriptor().FullName()), Message: b}
}

// TestGeneratedClientIsUnderstood: what is on the wire is what node.proto says.
func TestGeneratedClientIsUnderstood(t *testing.T) {
	n := startNode(t)
	in := n.inbox()
	s := exchange(t, n)
	bad := sealed(t, 2, beat(2))
	bad.Message = []byte{0xff}
	text := sealed(t, 3, beat(3))
	text.Message = []byte{0x0a, 1, 0xff} // a string that is not UTF-8
	req := &doppelv1.ExchangeRequest{From: "elsewhere:1", Envelopes: []*doppelv1.Envelope{
		sealed(t, 1, beat(1)), bad, text, {Id: 4}, sealed(t, 5, beat(5)),
	}}
	// Fields of a later version do not disturb.
	req.ProtoReflect().SetUnknown(protoreflect.RawFields{0x78, 1})
	req.GetEnvelopes()[0].ProtoReflect().SetUnknown(protoreflect.RawFields{0x7a, 1, 'x'})
	if err := s.Send(req); err != nil {
		t.Fatal(err)
	}
	res, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want := []reason{
		{2, doppelv1.RefusalReason_REFUSAL_REASON_NOT_DECODABLE},
		{3, doppelv1.RefusalReason_REFUSAL_REASON_NOT_DECODABLE},
		{4, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TYPE},
	}
	checkReasons(t, want, res.GetRefusals())
	if diff := cmp.Diff([]uint64{1, 5}, in.seqs()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if got := in.from[0]; got != "elsewhere:1" {
		t.Errorf("from %q, want elsewhere:1", got)
	}
	if err := s.Send(&doppelv1.ExchangeRequest{}); err != nil {
		t.Fatal(err)
	}
	if res, err := s.Recv(); err != nil || len(res.GetRefusals()) > 0 {
		t.Errorf("a ping was answered with %v, %v", res, err)
	}
}

// TestNewStreamReplacesTheOld: what a node says over a new stream never comes before what it said
// over an old one that is still being read.
func TestNewStreamReplacesTheOld(t *testing.T) {
	n := startNode(t)
	in := n.inbox()
	free, entered := make(chan struct{}), make(chan struct{})
	n.Handle("slow", func(string, proto.Message) { close(entered); <-free })
	from := func(e ...*doppelv1.Envelope) *doppelv1.ExchangeRequest {
		return &doppelv1.ExchangeRequest{From: "elsewhere:1", Envelopes: e}
	}
	slow := sealed(t, 1, beat(1))
	slow.Target = "slow"
	older, newer := exchange(t, n), exchange(t, n)
	if err := older.Send(from(slow, sealed(t, 2, beat(2)))); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := older.Send(from(sealed(t, 3, beat(3)))); err != nil {
		t.Fatal(err)
	}
	if err := newer.Send(from(sealed(t, 1, beat(4)))); err != nil {
		t.Fatal(err)
	}
	if _, err := older.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the old stream ended with %v, want Aborted", err)
	}
	if in.len() > 0 {
		t.Error("the new stream did not wait for the old one")
	}
	close(free)
	eventually(t, "the new stream goes on", func() bool { s := in.seqs(); return slices.Contains(s, 4) })
	if got, want := in.seqs(), []uint64{2, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAnonymousStreamIsEnded: nobody is delivered for who does not say who he is.
func TestAnonymousStreamIsEnded(t *testing.T) {
	n := startNode(t)
	in := n.inbox()
	for _, from := range []string{"", strings.Repeat("x", maxAddress+1)} {
		s := exchange(t, n)
		req := &doppelv1.ExchangeRequest{From: from, Envelopes: []*doppelv1.Envelope{sealed(t, 1, beat(1))}}
		if err := s.Send(req); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want InvalidArgument", err)
		}
	}
	if in.len() > 0 {
		t.Error("it was delivered all the same")
	}
}

// TestMalformedRequestEndsItsStreamOnly: any prefix of a request, and the request with any byte
// changed, harm nobody.
func TestMalformedRequestEndsItsStreamOnly(t *testing.T) {
	n := startNode(t)
	n.inbox()
	good, err := proto.Marshal(&doppelv1.ExchangeRequest{From: "elsewhere:1", Envelopes: []*doppelv1.Envelope{sealed(t, 1, beat(1))}})
	if err != nil {
		t.Fatal(err)
	}
	requests := [][]byte{}
	for i := range good {
		requests = append(requests, good[:i])
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := bytes.Clone(good)
			b[i] ^= flip
			requests = append(requests, b)
		}
	}
	malformed := 0
	for _, b := range requests {
		in := n.newInbound()
		if _, err := in.request(b); err != nil {
			malformed++
		}
		n.inbounds.leave(in)
	}
	if malformed == 0 {
		t.Error("none of the requests was found malformed: nothing is proven")
	}
}

func TestTellRefusesWhatCannotTravel(t *testing.T) {
	a, b := startNode(t, func(c *Config) { c.MaxMessage = 64 << 10 }), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())
	for _, c := range []struct {
		name   string
		target string
		m      proto.Message
		want   error
	}{
		{"too large", "inbox", padded(64 << 10), ErrTooLarge},
		{"nil", "inbox", nil, ErrNotProto},
		{"not UTF-8", "inbox", &doppelv1.Heartbeat{Node: "\xff"}, nil},
		{"name not UTF-8", "in\xffbox", beat(1), nil},
	} {
		err := a.Tell(b.Address(), c.target, c.m)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if err := a.Tell("", "inbox", beat(1)); err == nil {
		eventually(t, "no address is no peer", func() bool { return errors.Is(a.Tell("", "inbox", beat(1)), ErrDown) })
	}
	mustTell(t, a, b.Address(), "inbox", padded(60<<10))
	mustTell(t, a, b.Address(), "inbox", (*doppelv1.Heartbeat)(nil)) // an empty one
	mustTell(t, a, b.Address(), "inbox", beat(9))
	eventually(t, "the next ones arrive", func() bool { return in.len() == 3 })
	if got := in.seqs()[2]; got != 9 {
		t.Errorf("got message %d, want 9", got)
	}
	if got := len(a.refusals()); got != 0 {
		t.Errorf("%d messages were refused by the peer, want 0", got)
	}
}

// TestLargestMessageTravels: what Tell takes, the other node takes.
func TestLargestMessageTravels(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())
	for range 5 {
		for _, m := range []proto.Message{beat(1), padded(4<<20 - 100)} {
			eventually(t, "there is room", func() bool {
				err := a.Tell(b.Address(), "inbox", m)
				if err != nil && !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				return err == nil
			})
		}
	}
	eventually(t, "all arrived", func() bool { return in.len() == 10 })
}
