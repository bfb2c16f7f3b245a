package web

import (
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// route is a path that answers GET or DELETE, and the request that its query parameters fill.
type route struct {
	method  string
	parts   []string // between slashes; {…} stands for an id
	request protoreflect.MessageDescriptor
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
			if path := rule.GetGet(); path != "" {
				routes = append(routes, route{"GET", strings.Split(path, "/"), m.Input()})
			}
			if path := rule.GetDelete(); path != "" {
				routes = append(routes, route{"DELETE", strings.Split(path, "/"), m.Input()})
			}
		}
	}
	return routes
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

// checkQuery refuses parameters that are no fields of the request of a path.
func checkQuery(routes []route, method, path string, q url.Values) error {
	for i := range routes {
		r := &routes[i]
		if !r.matches(method, path) {
			continue
		}
		for name := range q {
			first, _, _ := strings.Cut(name, ".")
			fields := r.request.Fields()
			if fields.ByJSONName(first) == nil && fields.ByName(protoreflect.Name(first)) == nil {
				return badQuery(name, "no such parameter")
			}
		}
	}
	return nil
}
