package web

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// route is a method and path of the JSON API.
type route struct {
	method  string
	parts   []string                       // between slashes; {…} stands for an id
	request protoreflect.MessageDescriptor // what query parameters fill, where there is no body
	body    protoreflect.MessageDescriptor // nil: none is taken
}

// newRoutes reads the paths of a server's services off their google.api.http annotations.
func newRoutes(s *grpc.Server) []route {
	var routes []route
	for name := range s.GetServiceInfo() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := d.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			continue // a service without a description has no paths
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			if r, ok := newRoute(rule, m.Input()); ok {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

func newRoute(rule *annotations.HttpRule, request protoreflect.MessageDescriptor) (route, bool) {
	r := route{request: request}
	var path string
	for method, p := range map[string]string{
		http.MethodGet: rule.GetGet(), http.MethodDelete: rule.GetDelete(), http.MethodPost: rule.GetPost(), http.MethodPut: rule.GetPut(), http.MethodPatch: rule.GetPatch(),
	} {
		if p != "" {
			r.method, path = method, p
		}
	}
	switch name := rule.GetBody(); name {
	case "":
	case "*":
		r.body = request
	default:
		if f := request.Fields().ByName(protoreflect.Name(name)); f != nil {
			r.body = f.Message()
		}
	}
	r.parts = strings.Split(path, "/")
	return r, path != ""
}

// verbs are the custom methods of single resources, by collection and HTTP method. Only these end an id;
// every other colon belongs to it (MAC addresses have five).
func verbs(routes []route) map[string]map[string][]string {
	all := make(map[string]map[string][]string)
	for _, r := range routes {
		if len(r.parts) != 4 { // "", "v1", collection, {id}:verb
			continue
		}
		if _, verb, ok := strings.Cut(r.parts[3], "}:"); ok {
			if all[r.parts[2]] == nil {
				all[r.parts[2]] = make(map[string][]string)
			}
			all[r.parts[2]][r.method] = append(all[r.parts[2]][r.method], verb)
		}
	}
	return all
}

// find is the route of a path of routerPath.
func find(routes []route, method, path string) (*route, bool) {
	for i := range routes {
		if routes[i].matches(method, path) {
			return &routes[i], true
		}
	}
	return nil, false
}

// methods are those that a path of routerPath takes, sorted.
func methods(routes []route, path string) []string {
	var all []string
	for i := range routes {
		if routes[i].matches(routes[i].method, path) {
			all = append(all, routes[i].method)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// matches compares with a path of routerPath, where a colon stands before verbs only.
func (r *route) matches(method, path string) bool {
	parts := strings.Split(path, "/")
	if method != r.method || len(parts) != len(r.parts) {
		return false
	}
	for i, want := range r.parts {
		got := parts[i]
		if _, verb, ok := strings.Cut(want, "}"); ok {
			_, gotVerb, found := strings.Cut(got, ":")
			if found {
				gotVerb = ":" + gotVerb
			}
			got, want = gotVerb, verb
		}
		if got != want {
			return false
		}
	}
	return true
}

// checkBody refuses a body that is not the JSON of the message, which the transcoder would blame itself for.
func (r *route) checkBody(text []byte) error {
	msg := dynamicpb.NewMessage(r.body)
	if err := protojson.Unmarshal(text, msg); err != nil {
		why := strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:"))
		return badQuery("body", "is not the JSON of a "+string(r.body.Name())+": "+strings.ToValidUTF8(why, "\uFFFD"))
	}
	return nil
}
