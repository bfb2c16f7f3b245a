package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/gateway/auth"
)

// Tokens of the node whose errors are tested.
const (
	operatorToken = "the-token-of-the-operator"

	peopleFile = "tokens:\n" +
		"- {name: rita, token: " + readerToken + ", role: reader}\n" +
		"- {name: otto, token: " + operatorToken + ", role: operator}\n" +
		"- {name: ada, token: " + adminToken + ", role: admin}\n"
)

// roleTokens has for each role the token of somebody with it.
var roleTokens = map[auth.Role]string{auth.Reader: readerToken, auth.Operator: operatorToken, auth.Admin: adminToken}

// failure is a call that must fail, and how.
type failure struct {
	what string
	req  proto.Message
	code codes.Code
	// field is what BadRequest names; empty: there is none.
	field string
	// reason is that of the ErrorInfo; empty: any.
	reason string
	// says is a part of what the message says.
	says string
}

// rpc is one method: a request that could be answered, and those that are not.
type rpc struct {
	good     proto.Message
	failures []failure
}

// caller makes calls of any method of a node.
type caller struct {
	t    *testing.T
	addr string
	conn *grpc.ClientConn
}

func newCaller(t *testing.T, addr string) *caller {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{t: t, addr: addr, conn: conn}
}

// as is ctx with a token; empty: without one.
func as(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func methodPath(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// methods are those of all services of this product that the node says it serves.
func (c *caller) methods() (all []protoreflect.MethodDescriptor) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(as(c.t.Context(), adminToken), nodetest.Patience)
	defer cancel()
	s, err := grpc_reflection_v1.NewServerReflectionClient(c.conn).ServerReflectionInfo(ctx)
	if err == nil {
		err = s.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
		})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	list, err := s.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, served := range list.GetListServicesResponse().GetService() {
		if !strings.HasPrefix(served.GetName(), "doppel.") {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(served.GetName()))
		service, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			c.t.Fatalf("%s: not known as a service: %v", served.GetName(), err)
		}
		for i := range service.Methods().Len() {
			all = append(all, service.Methods().Get(i))
		}
	}
	return all
}

// call makes one call and returns its error, of a stream that of the first message.
func (c *caller) call(ctx context.Context, m protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, nodetest.Patience)
	defer cancel()
	t, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		c.t.Fatal(err)
	}
	out := t.New().Interface()
	if !m.IsStreamingServer() {
		return c.conn.Invoke(ctx, methodPath(m), req, out)
	}
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, methodPath(m))
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return s.RecvMsg(out)
}

// overdue makes a call whose deadline is over when it arrives. No client of a library does that: it would not
// even ask. It returns the status that the node answers with, or -1 where it ended the stream without one.
func (c *caller) overdue(m protoreflect.MethodDescriptor, req proto.Message) codes.Code {
	c.t.Helper()
	body, err := proto.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	ctx, cancel := context.WithTimeout(c.t.Context(), nodetest.Patience)
	defer cancel()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+methodPath(m), bytes.NewReader(frame))
	if err != nil {
		c.t.Fatal(err)
	}
	for key, value := range map[string]string{
		"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "1n", "authorization": "Bearer " + adminToken,
	} {
		post.Header.Set(key, value)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(post)
	if err != nil {
		if ctx.Err() != nil {
			c.t.Fatalf("%s: not ended: %v", m.FullName(), err)
		}
		return reset
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	said := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if said == "" {
		if err == nil || ctx.Err() != nil {
			c.t.Fatalf("%s: no status: %v", m.FullName(), err)
		}
		return reset
	}
	var code uint32
	if _, err := fmt.Sscan(said, &code); err != nil {
		c.t.Fatalf("%s: status %q", m.FullName(), said)
	}
	return codes.Code(code)
}

// reset stands for a stream that was ended without a status.
const reset = codes.Code(0xffffffff)

// check compares an error with what it has to be: its code, its details, and words that help.
func (f *failure) check(t *testing.T, err error) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != f.code {
		t.Errorf("%s: got %v %q, want %v", f.what, st.Code(), st.Message(), f.code)
		return
	}
	var fields, reasons []string
	retry := false
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, v.GetField())
				if len(v.GetDescription()) < 10 {
					t.Errorf("%s: %q helps nobody", f.what, v.GetDescription())
				}
			}
		case *errdetails.ErrorInfo:
			reasons = append(reasons, d.GetReason())
			if d.GetDomain() != auth.Domain {
				t.Errorf("%s: reason %s is of domain %q, want %q", f.what, d.GetReason(), d.GetDomain(), auth.Domain)
			}
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	var want []string
	if f.field != "" {
		want = []string{f.field}
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("%s: %q: fields in BadRequest (-want +got)\n%s", f.what, st.Message(), diff)
	}
	if f.reason != "" && !slices.Contains(reasons, f.reason) {
		t.Errorf("%s: %q: reasons %v, want %s", f.what, st.Message(), reasons, f.reason)
	}
	if st.Code() == codes.Unavailable && !retry {
		t.Errorf("%s: %q: no RetryInfo", f.what, st.Message())
	}
	if !strings.Contains(st.Message(), f.says) || st.Message() == "" {
		t.Errorf("%s: it says %q, want %q in it", f.what, st.Message(), f.says)
	}
}

// TestErrors: what every RPC answers when it is asked wrongly, by nobody, by somebody who may not, or too late;
// and that nothing of all this changed anything. An RPC that is not in the table fails.
func TestErrors(t *testing.T) {
	cfg := nodetest.Embedded(t)
	cfg.AuthTokens = filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(cfg.AuthTokens, []byte(peopleFile), 0o600); err != nil {
		t.Fatal(err)
	}
	n := nodetest.Start(t, cfg)
	c := newCaller(t, n.Addresses.GRPC)
	s := newScene(t, n, c)
	table := s.rpcs()
	before := s.state()
	for _, m := range c.methods() {
		t.Run(string(m.Parent().Name())+"/"+string(m.Name()), func(t *testing.T) {
			r, ok := table[methodPath(m)]
			delete(table, methodPath(m))
			if !ok || r.good == nil {
				t.Fatal("it is not in the table: write down how it fails")
			}
			for i := range r.failures {
				f := &r.failures[i]
				f.check(t, c.call(as(t.Context(), adminToken), m, f.req))
			}
			c.strangers(t, m, r.good)
			c.late(t, m, r.good)
		})
	}
	for method := range table {
		t.Errorf("%s is in the table and not served", method)
	}
	if diff := cmp.Diff(before, s.state()); diff != "" {
		t.Errorf("calls that failed changed something (-before +after)\n%s", diff)
	}
}

// strangers: nobody, somebody with a wrong token, and somebody whose role is one too low.
func (c *caller) strangers(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
	t.Helper()
	rule, ok := auth.RuleOf(methodPath(m))
	if !ok {
		t.Fatal("nobody may call it")
	}
	f := failure{what: "without a token", code: codes.Unauthenticated, reason: auth.ReasonMissing, says: "authorization: Bearer TOKEN"}
	f.check(t, c.call(t.Context(), m, req))
	f = failure{what: "with a wrong token", code: codes.Unauthenticated, reason: auth.ReasonInvalid, says: "token"}
	f.check(t, c.call(as(t.Context(), "a-token-of-nobody-here"), m, req))
	if rule.Role > auth.Reader {
		f = failure{what: "with too low a role", code: codes.PermissionDenied, reason: auth.ReasonRole, says: "asks for " + rule.Role.String()}
		f.check(t, c.call(as(t.Context(), roleTokens[rule.Role-1]), m, req))
	}
}

// late: a call that its client gave up, and one whose time is over, here or there.
func (c *caller) late(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
	t.Helper()
	ctx, cancel := context.WithCancel(as(t.Context(), adminToken))
	cancel()
	if err := c.call(ctx, m, req); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: got %v, want %v", err, codes.Canceled)
	}
	ctx, cancel = context.WithDeadline(as(t.Context(), adminToken), time.Now().Add(-time.Second))
	defer cancel()
	if err := c.call(ctx, m, req); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline passed: got %v, want %v", err, codes.DeadlineExceeded)
	}
	if got := c.overdue(m, req); got != codes.DeadlineExceeded && got != codes.Canceled && got != reset {
		t.Errorf("deadline passed on the way: the node answers %v", got)
	}
}
