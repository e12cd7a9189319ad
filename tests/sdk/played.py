"""An agent that refuses every listing with one gRPC status, for states that no real agent can be put into.

usage: played.py CODE [REASON]     (prints the port it listens on, then serves until killed)
"""
import sys
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

code = grpc.StatusCode[sys.argv[1]]
metadata = ()
if len(sys.argv) > 2:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(domain="sifter", reason=sys.argv[2]))
    status = status_pb2.Status(code=code.value[0], message="played", details=[detail])
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)


class Refusing(grpc.GenericRpcHandler):
    def service(self, _):
        def refuse(_, context):
            context.set_trailing_metadata(metadata)
            context.abort(code, "played")

        return grpc.unary_unary_rpc_method_handler(refuse)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((Refusing(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
