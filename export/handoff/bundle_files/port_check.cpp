// Check that model.onnx computes the reference outputs here, with the C++ interface of ONNX Runtime:
//     c++ -std=c++17 -I ORT/include -o check port/check.cpp -L ORT/lib -lonnxruntime && ./check .
// The functions Tensor and run are what a program needs; the rest compares.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Type {
  ONNXTensorElementDataType element;
  std::size_t bytes;
};

static const std::map<std::string, Type> TYPES = {
    {"float32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4}},   {"float64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8}},
    {"float16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2}}, {"bool", {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1}},
    {"int8", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1}},       {"uint8", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1}},
    {"int16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2}},     {"uint16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2}},
    {"int32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4}},     {"uint32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4}},
    {"int64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8}},     {"uint64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8}},
};

static std::vector<char> contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

static std::vector<std::string> split(const std::string& text, char mark) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, mark);) parts.push_back(part);
  return parts;
}

struct Tensor {  // numbers as they lie in a little-endian file, and what they are
  Type type;
  std::vector<std::int64_t> shape;
  std::vector<char> data;

  // an .npy file: 8 bytes of magic and version, the header's length, the header, the numbers
  Tensor(const std::string& folder, const std::vector<std::string>& row) : type(TYPES.at(row.at(2))) {
    for (const auto& axis : split(row.at(3), ',')) shape.push_back(std::stoll(axis));
    const auto bytes = contents(folder + "/" + row.at(4));
    const auto low = static_cast<unsigned char>(bytes.at(8)), high = static_cast<unsigned char>(bytes.at(9));
    data.assign(bytes.begin() + 10 + low + 256 * high, bytes.end());
  }

  Ort::Value value() {
    static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    return Ort::Value::CreateTensor(memory, data.data(), data.size(), shape.data(), shape.size(), type.element);
  }
};

static std::vector<Ort::Value> run(Ort::Session& session, std::vector<Tensor>& inputs) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<std::string> names;
  const std::size_t n_inputs = session.GetInputCount(), n_outputs = session.GetOutputCount();
  for (std::size_t k = 0; k < n_inputs; k++) names.push_back(session.GetInputNameAllocated(k, allocator).get());
  for (std::size_t k = 0; k < n_outputs; k++) names.push_back(session.GetOutputNameAllocated(k, allocator).get());
  std::vector<const char*> pointers;
  for (const auto& name : names) pointers.push_back(name.c_str());
  std::vector<Ort::Value> values;
  for (auto& input : inputs) values.push_back(input.value());
  return session.Run(Ort::RunOptions{nullptr}, pointers.data(), values.data(), values.size(),
                     pointers.data() + n_inputs, n_outputs);
}

static double half(std::uint16_t bits) {  // the number of a float16
  const int exponent = (bits >> 10) & 31, part = bits & 1023;
  const double size = exponent == 31 ? (part ? std::nan("") : INFINITY)
                      : exponent     ? std::ldexp(1024 + part, exponent - 25)
                                     : std::ldexp(part, -24);
  return bits & 0x8000 ? -size : size;
}

template <typename T>
static double as(const char* data, std::size_t k) {
  T number;
  std::copy(data + k * sizeof(T), data + (k + 1) * sizeof(T), reinterpret_cast<char*>(&number));
  return static_cast<double>(number);
}

static double number(ONNXTensorElementDataType type, const char* data, std::size_t k) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return as<float>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return as<double>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return half(static_cast<std::uint16_t>(as<std::uint16_t>(data, k)));
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return as<std::int8_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return as<std::int16_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return as<std::uint16_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return as<std::int32_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return as<std::uint32_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return as<std::int64_t>(data, k);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return as<std::uint64_t>(data, k);
    default: return as<std::uint8_t>(data, k);
  }
}

static double distance(const Tensor& expected, const Ort::Value& found) {
  const auto info = found.GetTensorTypeAndShapeInfo();
  if (info.GetShape() != expected.shape || info.GetElementType() != expected.type.element) return INFINITY;
  const auto* data = found.GetTensorData<char>();
  double worst = 0, largest = 1e-30;
  for (std::size_t k = 0; k < expected.data.size() / expected.type.bytes; k++) {
    const double left = number(expected.type.element, expected.data.data(), k);
    const double right = number(expected.type.element, data, k);
    if (!std::isfinite(left)) {
      if (!(left == right || (std::isnan(left) && std::isnan(right)))) return INFINITY;
      continue;
    }
    largest = std::max(largest, std::abs(left));
    const double difference = std::abs(left - right);
    worst = difference <= worst ? worst : difference;  // so that NaN stays
  }
  return worst / largest;
}

int main(int argc, char** argv) try {
  const std::string folder = argc > 1 ? argv[1] : ".";
  std::ifstream table(folder + "/reference/tensors.txt");
  std::string line;
  std::getline(table, line);
  const double tolerance = std::stod(split(line, '\t').at(1));
  std::map<int, std::map<std::string, std::vector<Tensor>>> calls;
  while (std::getline(table, line)) {
    if (line.empty() || line[0] == '#') continue;
    const auto row = split(line, '\t');
    calls[std::stoi(row.at(0))][row.at(1)].emplace_back(folder, row);
  }

  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  const auto model = contents(folder + "/model.onnx");
  Ort::Session session(env, model.data(), model.size(), Ort::SessionOptions{});
  double worst = 0;
  for (auto& [number, call] : calls) {
    const auto found = run(session, call["input"]);
    for (std::size_t k = 0; k < call["output"].size(); k++) {
      const double d = distance(call["output"][k], found.at(k));
      worst = d <= worst ? worst : d;
    }
  }
  std::cout << "largest difference " << worst << " of the largest number; allowed are " << tolerance << "\n";
  return worst <= tolerance ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
