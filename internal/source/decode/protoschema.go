package decode

import (
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/ast"
	"github.com/bufbuild/protocompile/parser"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The types of a Schema that format protobuf reads.
const (
	// TypeProtobuf is text, as in a .proto file.
	TypeProtobuf = "PROTOBUF"
	// TypeDescriptors is a FileDescriptorSet, as protoc --descriptor_set_out
	// writes it.
	TypeDescriptors = "PROTOBUF_DESCRIPTORS"
)

// protoFiles returns the files of a schema, those that messages are looked for in
// first in front: a descriptor set has what a file imports before it. Errors say
// what is wrong, and wrap nothing.
func protoFiles(s Schema) ([]protoreflect.FileDescriptor, error) {
	switch s.Type {
	case TypeProtobuf, "":
		return protoText(s)
	case TypeDescriptors:
		return protoSet([]byte(s.Text))
	}
	return nil, fmt.Errorf("it is of type %s", s.Type)
}

// builtIn are files that registries let schemas import without a reference,
// beside Protobuf's own.
//
//go:embed imports
var builtIn embed.FS

// rootName is the name under which a schema's own text is compiled: no reference
// has it.
const rootName = "schema\x00.proto"

func protoText(s Schema) ([]protoreflect.FileDescriptor, error) {
	texts := map[string]string{rootName: s.Text}
	gather(texts, s.References)
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(protocompile.ResolverFunc(func(name string) (protocompile.SearchResult, error) {
			if text, ok := texts[name]; ok {
				return protoFile(name, text), nil
			}
			file, err := builtIn.Open("imports/" + name)
			if err != nil {
				return protocompile.SearchResult{}, fmt.Errorf("there is no file %q: it lies in the schema's folder or in one above it, or is a reference of the registry's schema", name)
			}
			return protocompile.SearchResult{Source: file}, nil
		})),
		MaxParallelism: 1,
	}
	files, err := compiler.Compile(context.Background(), rootName)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), rootName+":", "line "))
	}
	return []protoreflect.FileDescriptor{files[0]}, nil
}

// protoFile is a file of a registry: text, or the base64 of a serialized
// FileDescriptorProto, which Confluent's clients for Python register, and which a
// registry may hand out as it came. No .proto file is base64: it has spaces.
func protoFile(name, text string) protocompile.SearchResult {
	data, err := base64.StdEncoding.DecodeString(text)
	file := &descriptorpb.FileDescriptorProto{}
	if err != nil || len(data) == 0 || proto.Unmarshal(data, file) != nil {
		return protocompile.SearchResult{Source: strings.NewReader(text)}
	}
	file.Name = &name
	nameJSON(file.GetMessageType())
	return protocompile.SearchResult{Proto: file}
}

// nameJSON gives each field the name in JSON that the compiler asks for and that
// only protoc's own plugins are told. Nothing is read by it.
func nameJSON(messages []*descriptorpb.DescriptorProto) {
	for _, m := range messages {
		for _, f := range m.GetField() {
			if f.JsonName == nil {
				f.JsonName = f.Name
			}
		}
		nameJSON(m.GetNestedType())
	}
}

// ProtoImports returns the names of the files that the text of a .proto file
// imports, as far as it can be read.
func ProtoImports(text string) []string {
	file, err := parser.Parse("", strings.NewReader(text), reporter.NewHandler(reporter.NewReporter(func(reporter.ErrorWithPos) error { return nil }, nil)))
	if file == nil || err != nil && len(file.Decls) == 0 {
		return nil
	}
	var names []string
	for _, d := range file.Decls {
		if i, ok := d.(*ast.ImportNode); ok {
			names = append(names, i.Name.AsString())
		}
	}
	return names
}

// gather adds the texts of references and of theirs. One file has one name
// throughout a schema.
func gather(texts map[string]string, references map[string]Schema) {
	for name, r := range references {
		if _, ok := texts[name]; !ok {
			texts[name] = r.Text
			gather(texts, r.References)
		}
	}
}

// wellKnown are the files that every compiler has built in.
func wellKnown() map[string]protoreflect.FileDescriptor {
	known := map[string]protoreflect.FileDescriptor{}
	for _, f := range []protoreflect.FileDescriptor{
		anypb.File_google_protobuf_any_proto, apipb.File_google_protobuf_api_proto, durationpb.File_google_protobuf_duration_proto,
		emptypb.File_google_protobuf_empty_proto, fieldmaskpb.File_google_protobuf_field_mask_proto, structpb.File_google_protobuf_struct_proto,
		sourcecontextpb.File_google_protobuf_source_context_proto, timestamppb.File_google_protobuf_timestamp_proto,
		typepb.File_google_protobuf_type_proto, wrapperspb.File_google_protobuf_wrappers_proto, descriptorpb.File_google_protobuf_descriptor_proto,
	} {
		known[f.Path()] = f
	}
	return known
}

func protoSet(data []byte) ([]protoreflect.FileDescriptor, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("it is no descriptor set, as protoc --descriptor_set_out writes it: %w", err)
	}
	if len(set.GetFile()) == 0 {
		return nil, errors.New("the descriptor set has no files")
	}
	own := map[string]bool{}
	for _, f := range set.GetFile() {
		own[f.GetName()] = true
	}
	known := wellKnown()
	all := &descriptorpb.FileDescriptorSet{File: slices.Clone(set.GetFile())}
	for i := 0; i < len(all.GetFile()); i++ { // what is added has imports, too
		for _, name := range all.GetFile()[i].GetDependency() {
			if own[name] {
				continue
			}
			f, ok := known[name]
			if !ok {
				return nil, fmt.Errorf("the descriptor set lacks %q, which %q imports; make it with protoc --include_imports", name, all.GetFile()[i].GetName())
			}
			own[name] = true
			all.File = append(all.File, protodesc.ToFileDescriptorProto(f))
		}
	}
	registry, err := protodesc.NewFiles(all)
	if err != nil {
		return nil, fmt.Errorf("the descriptor set is not complete: %w", err)
	}
	var files []protoreflect.FileDescriptor
	for _, f := range slices.Backward(set.GetFile()) {
		d, err := registry.FindFileByPath(f.GetName())
		if err != nil {
			return nil, err
		}
		files = append(files, d)
	}
	return files, nil
}

// protoMessage finds a message by its full name, "" for the first one.
func protoMessage(files []protoreflect.FileDescriptor, name string) (protoreflect.MessageDescriptor, error) {
	if name == "" {
		for _, f := range files {
			if f.Messages().Len() > 0 {
				return f.Messages().Get(0), nil
			}
		}
		return nil, errors.New("it has no message")
	}
	seen := map[string]bool{}
	var names []string
	for i := 0; i < len(files); i++ {
		if m := findMessage(files[i].Messages(), protoreflect.FullName(name), &names); m != nil {
			return m, nil
		}
		seen[files[i].Path()] = true
		for j := range files[i].Imports().Len() {
			if f := files[i].Imports().Get(j).FileDescriptor; !seen[f.Path()] && !f.IsPlaceholder() {
				seen[f.Path()] = true
				files = append(files[:len(files):len(files)], f)
			}
		}
	}
	const shown = 10
	more := ""
	if len(names) > shown {
		names, more = names[:shown], " …"
	}
	return nil, fmt.Errorf("it has no message %q, but %q%s", name, names, more)
}

// findMessage looks among messages and those inside of them, and notes the names
// that it passes.
func findMessage(in protoreflect.MessageDescriptors, name protoreflect.FullName, names *[]string) protoreflect.MessageDescriptor {
	for i := range in.Len() {
		m := in.Get(i)
		if m.FullName() == name {
			return m
		}
		if m.IsMapEntry() {
			continue
		}
		if m.FullName().Parent() != "google.protobuf" {
			*names = append(*names, string(m.FullName()))
		}
		if found := findMessage(m.Messages(), name, names); found != nil {
			return found
		}
	}
	return nil
}

// indexed returns the message at a path of indexes, as the registry's wire format
// has it: each counts the messages of a file, or of a message, in the order of the
// text. The entries of maps, which are messages only in descriptors, count if entries
// says so, and are nothing that a record is.
func indexed(f protoreflect.FileDescriptor, path []int32, entries bool) protoreflect.MessageDescriptor {
	in := f.Messages()
	var at protoreflect.MessageDescriptor
	for _, index := range path {
		at = nil
		for i := range in.Len() {
			if in.Get(i).IsMapEntry() && !entries {
				continue
			}
			if index == 0 {
				at = in.Get(i)
				break
			}
			index--
		}
		if at == nil {
			return nil
		}
		in = at.Messages()
	}
	if at != nil && at.IsMapEntry() {
		return nil
	}
	return at
}
