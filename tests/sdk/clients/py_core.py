"""aliyun-python-sdk-core: the product's own request class, or a CommonRequest with a form body."""
import json

from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.http import protocol_type
from aliyunsdkcore.request import CommonRequest
from aliyunsdkehpc.request.v20180412.ListContainerImagesRequest import ListContainerImagesRequest

from lines import Refused, serve


def call(request):
    scheme, address = request["endpoint"].split("://")
    host, port = address.split(":")
    options = dict(region_id="cn-hangzhou", port=int(port), auto_retry=False, verify=request.get("ca"))
    if request.get("token"):
        credential = StsTokenCredential(request["key"], request["secret"], request["token"])
        client = AcsClient(credential=credential, **options)
    else:
        client = AcsClient(request["key"], request["secret"], **options)
    parameters = request["parameters"]
    if request["style"] == "typed":
        query = ListContainerImagesRequest()
        query.set_endpoint(host)
        for name, value in parameters.items():
            getattr(query, f"set_{name}")(value)
    else:
        query = CommonRequest()
        query.set_domain(host)
        query.set_version(request["version"])
        query.set_action_name(request["action"])
        query.set_method("POST")
        for name, value in parameters.items():
            query.add_body_params(name, value)
    # Compared by identity: any other string of that value goes out as plain HTTP.
    query.set_protocol_type(protocol_type.HTTPS if scheme == "https" else protocol_type.HTTP)
    try:
        return json.loads(client.do_action_with_exception(query))
    except ServerException as error:
        raise Refused(
            error,
            error.get_error_code(),
            error.get_http_status(),
            error.get_error_msg(),
            error.get_request_id(),
        ) from error


serve(call)
